"""The parts of launch.mine_negatives: rankings, judged pairs, false negatives and the label table."""
