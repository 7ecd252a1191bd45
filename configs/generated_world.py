"""The transformer tower of the comparison in the large generated world.

The sizes are those of tiny_cpu. No document of that world has more than 48 tokens, so the towers read whole texts, as
BM25 does.
"""

from configs.tiny_cpu import CONFIG as TINY

CONFIG = TINY.replace(encoder={"max_document_tokens": 48})
