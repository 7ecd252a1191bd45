"""The parts of launch.mine_negatives."""
