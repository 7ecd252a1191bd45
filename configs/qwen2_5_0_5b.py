"""The paper's encoder (CroPS, section "Implementation"): Qwen2.5-0.5B, 128 tokens, last-token pooling, AdamW 2e-5.

The sizes stand here, so that the configuration compiles without weights; `--encoder.weights` names the folder (or hub
name, Qwen/Qwen2.5-0.5B) to start from. Batch, mesh and precision are ours: the paper leaves them open.

mesh.fsdp 16 is a row of 16 chips of a v5e slice: of weights, moments and gradients (8 GB in float32) a chip has half a
GB, and of the update's 14 GB of memory traffic a sixteenth; 16 divides the width of 896, 32 would too. Where fewer
chips are there it is as many as there are. Layers are computed again in the backward pass (remat); with 20 rows a chip
no micro-batches are needed, while few chips want --training.micro-batches.
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
