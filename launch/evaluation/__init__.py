"""The parts of launch.evaluate: test sets, metrics, files, and what a run was trained on."""
