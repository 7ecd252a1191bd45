"""Measurements that explain the figures of a comparison: anchors of the loss, sources of labels, an example query."""
