"""The parts of launch.report: sources, comparison of systems, and examples."""
