"""The world as log tables: what is written down, judged, and published by the language model's stand-in."""
