"""The transformer tower of the comparison in the large generated world.

The sizes are those of tiny_cpu. No document of that world has more than 48 tokens, so the towers read whole texts, as
BM25 does. RECIPE was chosen by `python -m benchmarks.recipe`, on the dev split and with baselines alone.
"""

from configs.tiny_cpu import CONFIG as TINY

RECIPE = {
    "data": {"queries_per_batch": 88, "documents_per_query": 2},
    "loss": {"level_weights": (0.3, 0.3, 0.3, 1.0, 1.0)},
}
"""The recipe of every system of the comparison: a batch of about 10,000 tokens, and small weights of levels 1 to 3.

Documents that were shown and not clicked are anchors of level 3. About half of them are relevant in that world.
"""

CONFIG = TINY.replace(encoder={"max_document_tokens": 48}, **RECIPE)
