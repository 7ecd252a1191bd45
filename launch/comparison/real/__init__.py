"""The comparison on real data: settings of each data set, its systems, shared steps, the peer's pairs and the cells."""
