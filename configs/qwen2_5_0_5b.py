"""The paper's encoder (CroPS, section "Implementation"): Qwen2.5-0.5B, 128 tokens, last-token pooling, AdamW 2e-5.

The sizes are written in this file so that the configuration compiles without weights. `--encoder.weights` gives the
folder (or the hub name, Qwen/Qwen2.5-0.5B) of the weights to start from. The paper does not state the batch size, the
mesh and the precision; their values are choices of this project.

mesh.fsdp = 16 is one row of 16 chips of a v5e slice. Weights, moments and gradients take 8 GB in float32, so each chip
holds half a GB of them, and it does a sixteenth of the update's 14 GB of memory traffic. 16 divides the width of 896;
32 would too. On fewer than 16 chips, fsdp is the number of chips. Layers are computed again in the backward pass
(remat). With 20 rows per chip no micro-batches are needed; a run on few chips needs --training.micro-batches.
"""

from configs.base import CONFIG as BASE

CONFIG = BASE.replace(
    encoder={
        "family": "qwen2",
        "vocabulary_size": 151_936,
        "width": 896,
        "layers": 24,
        "heads": 14,
        "key_value_heads": 2,
        "feed_forward_width": 4864,
        "max_positions": 32_768,
        "rotary_base": 1e6,
        "layer_norm_epsilon": 1e-6,
        "pooling": "last",
        "max_query_tokens": 128,
        "max_document_tokens": 128,
        "compute_dtype": "bfloat16",
        "remat": True,
    },
    data={"queries_per_batch": 1024, "documents_per_query": 4},
    mesh={"fsdp": 16},
    optimizer={"learning_rate": 2e-5, "weight_decay": 1e-4},
)
