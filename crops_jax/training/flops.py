"""Floating-point operations that training has to do, and the share of the devices' peak that it makes of them.

Model FLOPs utilisation (Chowdhery et al., PaLM, arXiv 2204.02311, appendix B) counts useful tokens only, a backward
pass as two forward passes, and nothing that is computed again (remat, micro-batches, the tiles of the loss). Counted
are matrix products, an addition and a multiplication as two:

    of a token      2 x the entries of the matrices that its state is multiplied by
    attention       4 x heads x head width of each pair of tokens of which one sees the other
    the loss        2 x dim of each pair of query and document

Lookups, norms, activations, pooling and the optimiser are left out.
"""

from crops_jax.config import Config, EncoderConfig
from crops_jax.devices.accelerators import accelerator_of

_FORWARD_AND_BACKWARD = 3


def step_flops(config: Config, *, tokens: float, causal_pairs: float) -> float:
    """Model FLOPs of a training step, forward and backward, on all devices together.

    Args:
      tokens: of all texts of the batch, padding not counted.
      causal_pairs: the sum over its texts of n (n + 1) / 2, n tokens each.
    """
    queries = config.data.queries_per_batch
    documents = queries * config.data.documents_per_query
    if config.encoder.family == "hashed":
        tower = hashed_text_flops(config.encoder) * (queries + documents)
    else:
        tower = token_flops(config.encoder) * tokens
        tower += attention_flops(config.encoder, tokens=tokens, causal_pairs=causal_pairs)
    loss = 2.0 * queries * documents * sum((*config.loss.matryoshka_dims, config.encoder.width))
    return _FORWARD_AND_BACKWARD * (tower + loss)


def token_flops(config: EncoderConfig) -> float:
    """Returns the FLOPs of one token's forward pass through all layers of a transformer, without attention."""
    width, head_width = config.width, _head_width(config)
    heads, groups = config.heads * head_width, (config.key_value_heads or config.heads) * head_width
    projections = 2 * width * heads + 2 * width * groups
    # SwiGLU has two matrices up.
    feed_forward = (2 if config.family == "bert" else 3) * width * config.feed_forward_width
    return 2.0 * config.layers * (projections + feed_forward)


def attention_flops(config: EncoderConfig, *, tokens: float, causal_pairs: float) -> float:
    """Returns the FLOPs of attention in the forward pass. A BERT token sees its whole text, a Qwen token no later
    one.
    """
    pairs = 2 * causal_pairs - tokens if config.family == "bert" else causal_pairs
    return 4.0 * config.layers * config.heads * _head_width(config) * pairs


def hashed_text_flops(config: EncoderConfig) -> float:
    """Returns the FLOPs of one text's forward pass through the network over hashed features."""
    widths = [len(config.hashed_features) * config.feature_width, *[config.feed_forward_width] * config.layers]
    return 2.0 * sum(inputs * outputs for inputs, outputs in zip(widths, (*widths[1:], config.width)))


def utilization(flops: float, seconds: float, *, devices: int, device_kind: str) -> float | None:
    """FLOPs a second as a share of the bfloat16 peak of all devices; None where that is not known."""
    accelerator = accelerator_of(device_kind)
    return flops / (seconds * devices * accelerator.peak_flops) if accelerator and seconds > 0 else None


def _head_width(config: EncoderConfig) -> int:
    return config.head_width or config.width // config.heads
