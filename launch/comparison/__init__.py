"""The parts of launch.compare: systems, shared steps, cells, per-query values, statistics, the table and its page."""
