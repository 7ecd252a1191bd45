"""Documents that a language model writes: asked for, validated, filtered and kept (knowledge level)."""
