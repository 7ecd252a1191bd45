"""Flax NNX modules: text towers, their attention and pooling, the dual encoder and the cross-encoder."""
