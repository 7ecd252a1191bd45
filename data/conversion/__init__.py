"""Raw files of a public data set in, accepted log tables out; the adapters stand in data/sources."""
