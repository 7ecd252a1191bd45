"""The parts of launch.evaluate: test sets, searching, metrics, notes, files, and what a run was trained on."""
