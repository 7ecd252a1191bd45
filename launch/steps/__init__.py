"""The steps of launch.pipeline, which are calls of the other programs."""
