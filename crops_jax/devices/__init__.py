"""Devices, processes and clusters. Nothing is imported here, since process_memory has to run before NumPy is loaded."""
