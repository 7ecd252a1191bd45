"""The floating-point operations (FLOPs) of training, and their share of the peak of the devices.

Model FLOPs utilisation (Chowdhery et al., PaLM, arXiv 2204.02311, appendix B) counts only tokens that are not padding.
It counts a backward pass as two forward passes, and ignores operations that are repeated (remat, micro-batches, the
tiles of the loss). The counts are those of matrix products; an addition and a multiplication are two operations:

    each token                                        2 x the entries of the matrices that multiply its state
    attention, each pair of a token and one it sees   4 x heads x head width
    Dense modules, each text                          2 x the entries of their matrices
    the loss, each pair of a query and a document     2 x dim, of a Poly-encoder 2 x codes x dim

The counts leave out lookups, norms, activations, pooling and the optimiser.
"""

import itertools

from crops_jax.config import Config, EncoderConfig
from crops_jax.devices.accelerators import accelerator_of

_FORWARD_AND_BACKWARD = 3


def step_flops(config: Config, *, tokens: float, causal_pairs: float) -> float:
    """Returns the model FLOPs of a training step, forward and backward, on all devices together.

    Args:
      config: the configuration, for the encoder, the batch and the loss.
      tokens: the number of tokens of all texts of the batch, without padding.
      causal_pairs: the sum of n (n + 1) / 2 over the texts of the batch, where n is the number of tokens of a text.
    """
    queries = config.data.queries_per_batch
    documents = queries * config.data.documents_per_query
    if config.encoder.family == "hashed":
        tower = hashed_text_flops(config.encoder) * (queries + documents)
    else:
        tower = token_flops(config.encoder) * tokens
        tower += attention_flops(config.encoder, tokens=tokens, causal_pairs=causal_pairs)
        tower += dense_flops(config.encoder) * (queries + documents)
    vectors_of_query = max(1, config.encoder.query_codes)
    loss = 2.0 * queries * documents * sum((*config.loss.matryoshka_dims, config.encoder.dim)) * vectors_of_query
    return _FORWARD_AND_BACKWARD * (tower + loss)


def token_flops(config: EncoderConfig) -> float:
    """Returns the FLOPs of one token's forward pass through all layers of a transformer, without attention."""
    width, head_width = config.width, _head_width(config)
    heads, groups = config.heads * head_width, (config.key_value_heads or config.heads) * head_width
    projections = 2 * width * heads + 2 * width * groups
    # The feed-forward network of BERT has two matrices. SwiGLU and GeGLU have three: two up and one down.
    feed_forward = (3 if config.is_rotary else 2) * width * config.feed_forward_width
    return 2.0 * config.layers * (projections + feed_forward)


def attention_flops(config: EncoderConfig, *, tokens: float, causal_pairs: float) -> float:
    """Returns the FLOPs of attention in the forward pass.

    A token of BERT sees its whole text; a token of Qwen sees itself and the tokens before it. The windows of ModernBERT
    and Gemma are not considered, so that texts beyond them count too much.
    """
    pairs = causal_pairs if config.is_decoder else 2 * causal_pairs - tokens
    return 4.0 * config.layers * config.heads * _head_width(config) * pairs


def hashed_text_flops(config: EncoderConfig) -> float:
    """Returns the FLOPs of one text's forward pass through the network over hashed features."""
    widths = [len(config.hashed_features) * config.feature_width, *[config.feed_forward_width] * config.layers]
    return 2.0 * sum(inputs * outputs for inputs, outputs in zip(widths, (*widths[1:], config.width)))


def dense_flops(config: EncoderConfig) -> float:
    """Returns the FLOPs of one text's forward pass through the Dense modules after the pooling."""
    return 2.0 * sum(inputs * outputs for inputs, outputs in itertools.pairwise((config.width, *config.dense_widths)))


def utilization(flops: float, seconds: float, *, devices: int, device_kind: str) -> float | None:
    """Returns FLOPs per second as a share of the bfloat16 peak of all devices; None where the peak is not known."""
    accelerator = accelerator_of(device_kind)
    return flops / (seconds * devices * accelerator.peak_flops) if accelerator and seconds > 0 else None


def _head_width(config: EncoderConfig) -> int:
    return config.head_width or config.width // config.heads
