"""Documents that a language model writes for the knowledge level: they are requested, validated, filtered and kept."""
