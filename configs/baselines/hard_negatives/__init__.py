"""The baselines whose negatives are mined: losses and documents of a batch. launch.compare mines between their phases.

CHANGES of a module are the sections that it changes, as in configs.baselines. All of them train on clicks with mined
negatives of level 1 (`launch.mine_negatives --replace-negatives --level 1`), one positive of each query in a batch.
"""
