"""Devices, processes and clusters. This file imports nothing, as process_memory has to run before NumPy is loaded."""
