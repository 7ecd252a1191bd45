"""The systems that differ from configs.baselines.crops in their loss alone. Labels: those of all perspectives."""
