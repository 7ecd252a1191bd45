"""The parts of launch.report."""
