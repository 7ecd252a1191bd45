"""The conversion of the raw files of a public data set to accepted log tables; the adapters are in data/sources."""
