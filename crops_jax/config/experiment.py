"""The frozen dataclasses of one experiment. configs/ holds one module per experiment, with a CONFIG of type Config.

Each __post_init__ only validates; it never changes a field.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from crops_jax.storage import InputPath


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise ValueError(f"configuration: {rule}, found {value}")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The tower that encodes a text, and how its token states become a vector."""

    family: Literal["bert", "mpnet", "nomic_bert", "modernbert", "gemma3", "qwen2", "qwen3", "mistral", "hashed"] = (
        "bert"
    )
    """The family of the tower: bert, mpnet and nomic_bert are crops_jax.models.bert, qwen2, qwen3 and mistral are
    crops_jax.models.qwen, gemma3 (EmbeddingGemma) is crops_jax.models.gemma, and modernbert and hashed are the modules
    of crops_jax.models with these names."""
    vocabulary_size: int = 30522
    """The number of rows of the token embedding. Records of a tokenizer with more tokens are refused."""
    width: int = 384
    """The width of token states, and of the vectors unless Dense modules follow the pooling."""
    layers: int = 6
    """The number of layers. In the family hashed these are the network's hidden layers, each of feed_forward_width."""
    heads: int = 12
    """The number of attention heads of a layer."""
    key_value_heads: int = 0
    """Qwen, Mistral, Gemma: the number of key and value heads, each shared by heads / key_value_heads queries. 0: as
    many as heads."""
    head_width: int = 0
    """Qwen, Mistral and Gemma: the width of a head. 0: width / heads."""
    query_scalar: int = 0
    """Gemma: the number by whose square root scores of attention are divided. 0: the width of a head."""
    rotary_base: float = 1e6
    """The base of the rotary frequencies (rope_theta) of all families but BERT, MPNet and hashed; in ModernBERT and
    Gemma that of the layers that see whole texts."""
    local_rotary_base: float = 1e4
    """ModernBERT, Gemma: the base of the rotary frequencies of the layers with a window."""
    local_window: int = 64
    """ModernBERT, Gemma: the number of positions on each side that a token of the layers with a window sees."""
    global_every: int = 3
    """ModernBERT, Gemma: the distance n from one layer that sees whole texts to the next. The first such layer is layer
    1 of ModernBERT, and layer n of Gemma."""
    relative_buckets: int = 32
    """MPNet: the number of buckets of distances between tokens; an even number, at least 4."""
    hashed_features: tuple[Literal["unigrams", "bigrams", "text"], ...] = ("unigrams", "bigrams", "text")
    """hashed: the features of a text: its tokens, its pairs of neighbouring tokens, and the whole text as one ID."""
    hash_buckets: int = 1 << 17
    """hashed: the number of rows of each feature's table. With at least vocabulary_size rows, tokens are not hashed."""
    feature_width: int = 64
    """hashed: the number of columns of each feature's table."""
    feed_forward_width: int = 1536
    """The width of the hidden layer of each feed-forward network."""
    max_positions: int = 512
    """The number of rows of the position table; without such a table the maximum number of tokens."""
    position_offset: int = 0
    """The row of the position table that the first token uses: 0 for BERT, 2 for RoBERTa, XLM-R and MPNet."""
    type_vocabulary_size: int = 2
    """BERT, NomicBERT: the number of rows of the token type table."""
    layer_norm_epsilon: float = 1e-12
    """The epsilon of layer norms, and of the RMS norms of Qwen, Mistral and Gemma."""
    remat: bool = False
    """Whether the backward pass computes each layer again, so that its states need not be kept in memory."""
    dropout: float = 0.0
    """The probability that training drops a component: of embeddings, attention weights and layer outputs."""
    pooling: Literal["mean", "first", "last"] = "mean"
    """How token states become a vector: their mean, the state of the first token, or that of the last one."""
    dense_widths: tuple[int, ...] = ()
    """The number of outputs of each Dense module, a linear layer with an activation that follows the pooling; the last
    one is the length of the vectors. Empty: the pooled states are the vectors."""
    dense_biases: tuple[bool, ...] = ()
    """Whether each Dense module has a bias."""
    dense_activations: tuple[Literal["identity", "tanh", "relu", "gelu", "silu"], ...] = ()
    """The activation of each Dense module."""
    shared_towers: bool = True
    """Whether queries and documents share one set of weights. The paper does not say."""
    query_codes: int = 0
    """The number of learnt codes of a Poly-encoder (crops_jax.models.query_codes), which gives a query as many vectors.
    Its score is slow, so it reranks (launch.evaluate --rerank-by). 0: a dual encoder, with one vector of a query."""
    max_query_tokens: int = 32
    """The number of tokens at which a query is cut, special tokens included."""
    max_document_tokens: int = 128
    """The number of tokens at which a document is cut, special tokens included."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """The type of matrix products. Weights, norms and softmax are float32."""
    attention: Literal["auto", "plain", "flash"] = "auto"
    """The attention of training steps. "plain" multiplies matrices and takes a softmax; "flash" uses kernels in which
    scores never leave the chip (TPU, NVIDIA GPU). "auto" is flash on TPUs for rows of at least 512 tokens without
    dropout, and otherwise plain. Evaluation and embedding always use plain attention."""
    weights: InputPath = ""
    """The Hugging Face folder or hub name whose weights and sizes training starts from. Empty: random weights."""

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "width", "layers", "heads", "feed_forward_width", "max_positions"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        _require(self.key_value_heads >= 0, "key_value_heads must not be negative", self.key_value_heads)
        _require(self.head_width >= 0, "head_width must not be negative", self.head_width)
        if not (self.is_decoder or self.family == "gemma3"):
            unset = not (self.key_value_heads or self.head_width)
            _require(
                unset,
                "key_value_heads and head_width are those of Qwen, Mistral and Gemma",
                f"{self.key_value_heads} and {self.head_width}",
            )
        self._check_dense()
        if self.family == "hashed":
            self._check_features()
        else:
            self._check_heads()
        _require(self.type_vocabulary_size > 0, "type_vocabulary_size must be positive", self.type_vocabulary_size)
        _require(self.position_offset >= 0, "position_offset must not be negative", self.position_offset)
        _require(0 <= self.dropout < 1, "dropout must lie in [0, 1)", self.dropout)
        flash = self.attention == "flash"
        _require(not (flash and self.dropout), "attention 'flash' has no dropout; dropout must be 0", self.dropout)
        _require(not flash or self.family != "hashed", "attention must be 'auto' for a tower without any", "flash")
        rule = f"attention 'flash' cannot compute that of {self.family}"
        _require(not flash or self.has_flash_attention, rule, "flash")
        for name in ("local_window", "global_every"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        _require(self.query_scalar >= 0, "query_scalar must not be negative", self.query_scalar)
        _require(self.local_rotary_base > 0, "local_rotary_base must be positive", self.local_rotary_base)
        buckets = self.relative_buckets
        _require(buckets >= 4 and buckets % 2 == 0, "relative_buckets must be even and at least 4", buckets)
        _require(self.query_codes >= 0, "query_codes must not be negative", self.query_codes)
        longest = self.max_positions - self.position_offset
        for name in ("max_query_tokens", "max_document_tokens"):
            value = getattr(self, name)
            rule = f"{name} must lie in [3, max_positions - position_offset] = [3, {longest}]"
            _require(3 <= value <= longest, rule, value)

    @property
    def is_decoder(self) -> bool:
        """Whether the tower is a decoder, with causal attention: Qwen or Mistral."""
        return self.family in ("qwen2", "qwen3", "mistral")

    @property
    def has_flash_attention(self) -> bool:
        """Whether kernels compute the tower's attention. They have neither biases nor windows."""
        return self.family not in ("hashed", "mpnet", "modernbert", "gemma3")

    @property
    def is_rotary(self) -> bool:
        """Whether the tower has rotary positions, and with them gated feed-forward networks of three matrices."""
        return self.family not in ("bert", "mpnet", "hashed")

    @property
    def global_layers(self) -> tuple[bool, ...]:
        """For each layer of ModernBERT or Gemma, whether its tokens see whole texts."""
        first = self.global_every - 1 if self.family == "gemma3" else 0
        return tuple(i % self.global_every == first for i in range(self.layers))

    @property
    def dim(self) -> int:
        """The number of components of the vectors of texts."""
        return self.dense_widths[-1] if self.dense_widths else self.width

    def _check_heads(self) -> None:
        if not self.head_width:
            sizes = f"{self.width} and {self.heads}"
            _require(self.width % self.heads == 0, "width must be a multiple of heads", sizes)
        groups = self.key_value_heads or self.heads
        _require(self.heads % groups == 0, "heads must be a multiple of key_value_heads", f"{self.heads} and {groups}")
        if self.is_rotary:
            width = self.head_width or self.width // self.heads
            _require(width % 2 == 0, "rotary positions need heads of even width", width)
            _require(self.rotary_base > 0, "rotary_base must be positive", self.rotary_base)

    def _check_dense(self) -> None:
        widths = self.dense_widths
        _require(all(width > 0 for width in widths), "dense_widths must be positive", widths)
        counts = (len(widths), len(self.dense_biases), len(self.dense_activations))
        rule = "dense_widths, dense_biases and dense_activations must name equally many Dense modules"
        _require(len(set(counts)) == 1, rule, ", ".join(map(str, counts)))
        rule = "query_codes need the states of tokens: dense_widths must be empty"
        _require(not (widths and self.query_codes), rule, widths)
        rule = "a hashed tower has a network of its own: dense_widths must be empty"
        _require(not widths or self.family != "hashed", rule, widths)

    def _check_features(self) -> None:
        features = self.hashed_features
        distinct = 0 < len(features) == len(set(features))
        _require(distinct, "hashed_features must name one feature or more, each once", features)
        _require(self.feature_width > 0, "feature_width must be positive", self.feature_width)
        _require(0 < self.hash_buckets < 2**31, "hash_buckets must lie in [1, 2^31)", self.hash_buckets)
        _require(self.pooling == "mean", "hashed features are pooled by their mean", self.pooling)
        _require(
            not self.query_codes, "hashed towers have no token states for query_codes; it must be 0", self.query_codes
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The content of a global batch, and how it is read."""

    queries_per_batch: int = 64
    """The number of queries of a global batch, on all devices together."""
    documents_per_query: int = 4
    """The number of documents of a record whose text enters one batch. They are chosen by (seed, step) among those
    whose tokens the record holds."""
    positives_per_query: int = 0
    """The maximum number of these documents that are positives (levels 4 and 5), so that the others are hard negatives.
    A record with too few hard negatives leaves columns empty. 0: any number."""
    labels_per_query: int = 32
    """k of SparseLabels: the maximum number of labels above level 0 of a query in one batch. Overflow is counted."""
    row_tokens: int = 0
    """The number of tokens of a row into which texts are packed. 0: the shortest row that holds the longest text."""
    shuffle: bool = True
    """Whether each epoch reads the records in another order, which the seed decides."""
    workers: int = 0
    """The number of worker processes that read ahead. 0: the training process reads. It never changes what is read."""
    read_threads: int = 1
    """The number of records that a process reads at once. More than 1 pays where a read waits, as on a file system of
    the network. It never changes what is read."""

    def __post_init__(self) -> None:
        for name in ("queries_per_batch", "documents_per_query", "labels_per_query", "read_threads"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        positives = self.positives_per_query
        _require(positives >= 0, "positives_per_query must not be negative", positives)
        _require(self.workers >= 0, "workers must not be negative", self.workers)
        _require(self.row_tokens >= 0, "row_tokens must not be negative", self.row_tokens)


PAIRWISE_LOSSES = ("ranknet", "lambda_mrr", "lambda_ndcg", "pairwise_log", "binary_nce")
"""The losses that need every score of a batch, so that their only implementation is the dense one."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss and its temperature."""

    name: Literal[
        "h_infonce",
        "infonce",
        "multi_positive_infonce",
        "softmax_cross_entropy",
        "rince",
        "ranknet",
        "lambda_mrr",
        "lambda_ndcg",
        "pairwise_log",
        "binary_nce",
    ] = "h_infonce"
    """The loss; see the function of this name in crops_jax.losses, and "lambda_loss" for lambda_mrr and lambda_ndcg."""
    implementation: Literal["auto", "dense", "streaming", "pallas"] = "auto"
    """The losses from ranknet on need every score of a batch; their only implementation is dense."""
    normalization: Literal["anchors", "queries", "sum"] = "anchors"
    """The loss is the mean over all terms of a batch, the mean over the means of its queries, or the plain sum."""
    level_weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """The weight of a term by the level of its document, for levels 1 to 5."""
    ignore_margin: float | None = None
    """A document of another query is ignored when its score is at least that of the query's best positive minus this
    margin. None: no document is ignored."""
    log_q_correction: bool = False
    """Whether the logarithm of the estimated probability that a batch holds a document is subtracted from the
    document's scores with other queries than its own."""
    log_q_decay: float = 0.05
    """The weight of the newest interval in the moving average that estimates this probability."""
    log_q_buckets: int = 1 << 20
    """The number of hash buckets of this estimate, 8 bytes each. It should be several times the number of documents."""
    matryoshka_dims: tuple[int, ...] = ()
    """The numbers of leading components, each below the length of the vectors, that can be used as shorter vectors
    (Matryoshka representations, arXiv 2205.13147). The loss is its mean over these and the full length. Empty: the full
    length."""
    rince_form: Literal["out", "in", "out_in"] = "out"
    """The form of the loss rince: which positives of a level its denominator has (Hoffmann et al., AAAI 2022)."""
    rince_temperature_factors: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """The temperatures of levels 1 to 5 as multiples of the learnt temperature."""
    distillation: Literal["none", "kl", "margin_mse"] = "none"
    """The loss that is added to the loss `name`, to bring the scores of a query's documents near those of the relevance
    discriminator, which data.write_records --discriminator writes. "kl" compares distributions, "margin_mse" the
    differences of all pairs (crops_jax.losses.distillation)."""
    distillation_weight: float = 1.0
    """The weight of the added loss."""
    teacher_temperature: float = 1.0
    """The number by which the logits of the discriminator are divided. That of the encoder is the learnt
    temperature."""
    corpus_top: int = 200
    """The number of first documents of the whole corpus over which the loss of a query is, when the document tower is
    frozen (launch.train --document-embeddings). It has no effect otherwise."""
    initial_temperature: float = 0.05
    """The temperature by which scores are divided, at the first step."""
    learn_temperature: bool = True
    """Whether the temperature is learnt. Otherwise it stays the initial one."""
    minimum_temperature: float = 0.01
    """The lower limit of the temperature, which is clipped after each step."""
    maximum_temperature: float = 1.0
    """The upper limit of the temperature."""

    def __post_init__(self) -> None:
        _require(
            0 < self.minimum_temperature <= self.initial_temperature <= self.maximum_temperature,
            "0 < minimum_temperature <= initial_temperature <= maximum_temperature",
            f"{self.minimum_temperature}, {self.initial_temperature}, {self.maximum_temperature}",
        )
        weights, factors = self.level_weights, self.rince_temperature_factors
        finite = len(weights) == 5 and all(0 <= weight < math.inf for weight in weights)
        _require(finite, "level_weights must be 5 finite numbers >= 0", weights)
        finite = len(factors) == 5 and all(0 < factor < math.inf for factor in factors)
        _require(finite, "rince_temperature_factors must be 5 finite numbers > 0", factors)
        plain = self.name != "softmax_cross_entropy" or all(weight == 1 for weight in weights)
        _require(plain, "softmax_cross_entropy has no terms of a level: level_weights must be 1", weights)
        if self.name in PAIRWISE_LOSSES:
            dense = self.implementation in ("auto", "dense")
            _require(dense, f"{self.name} needs every score: implementation must be auto or dense", self.implementation)
            corrected = self.log_q_correction and self.name != "binary_nce"
            _require(not corrected, f"{self.name} has no sum that log_q_correction could correct; it must be off", "on")
        margin = self.ignore_margin
        _require(margin is None or math.isfinite(margin), "ignore_margin must be finite or None", margin)
        _require(0 < self.log_q_decay <= 1, "log_q_decay must lie in (0, 1]", self.log_q_decay)
        _require(self.log_q_buckets > 0, "log_q_buckets must be positive", self.log_q_buckets)
        weight, teacher = self.distillation_weight, self.teacher_temperature
        _require(0 < weight < math.inf, "distillation_weight must be positive and finite", weight)
        _require(0 < teacher < math.inf, "teacher_temperature must be positive and finite", teacher)
        _require(self.corpus_top > 0, "corpus_top must be positive", self.corpus_top)
        dims = self.matryoshka_dims
        ascending = all(low < high for low, high in zip((0, *dims), dims))
        _require(ascending, "matryoshka_dims must be positive and ascend", dims)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay, a rate for each layer, and a moving average of the weights."""

    learning_rate: float = 2e-5
    """The greatest learning rate, which the schedule reaches after the warm-up."""
    temperature_learning_rate: float = 1e-2
    """The learning rate of the logarithm of the temperature, with the schedule of learning_rate. A step changes the
    temperature by about 1 % at most. A rate for weights would hardly change it: 500 steps of 2e-5 change it by at most
    1 %. It has no effect on cross-encoders."""
    weight_decay: float = 1e-4
    """The decay of matrices and tables for each unit of learning rate (AdamW); norms and biases have none."""
    warmup_fraction: float = 0.1
    """The share of all steps in which the learning rate rises to its greatest value."""
    final_fraction: float = 0.0
    """The learning rate at the last step, as a fraction of learning_rate."""
    clip_norm: float = 1.0
    """The norm of the whole gradient above which it is scaled down."""
    b1: float = 0.9
    """The decay of the first moment of Adam."""
    b2: float = 0.999
    """The decay of the second moment of Adam."""
    epsilon: float = 1e-8
    """The number that Adam adds to the root of the second moment."""
    layer_decay: float = 1.0
    """The learning rate of a layer as a multiple of the rate of the layer after it; embeddings precede the first layer.
    The last layer and the heads use learning_rate, the temperature temperature_learning_rate."""
    ema_decay: float = 0.0
    """The decay of a moving average of the weights, which evaluation, embedding and export then use. 0: no average.
    After n updates the decay is at most (1 + n) / (10 + n), so it is smaller at first."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "temperature_learning_rate", "weight_decay", "epsilon"):
            _require(math.isfinite(getattr(self, name)), f"{name} must be finite", getattr(self, name))
        for name in ("learning_rate", "temperature_learning_rate"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        _require(self.weight_decay >= 0, "weight_decay must not be negative", self.weight_decay)
        _require(0 <= self.warmup_fraction < 1, "warmup_fraction must lie in [0, 1)", self.warmup_fraction)
        _require(0 <= self.final_fraction <= 1, "final_fraction must lie in [0, 1]", self.final_fraction)
        _require(self.clip_norm > 0, "clip_norm must be positive", self.clip_norm)
        _require(0 <= self.b1 < 1 and 0 <= self.b2 < 1, "b1 and b2 must lie in [0, 1)", f"{self.b1}, {self.b2}")
        _require(self.epsilon > 0, "epsilon must be positive", self.epsilon)
        _require(0 < self.layer_decay <= 1, "layer_decay must lie in (0, 1]", self.layer_decay)
        _require(0 <= self.ema_decay < 1, "ema_decay must lie in [0, 1)", self.ema_decay)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The number of devices along each axis; -1 takes all that the other axes leave.

    A resumed run can change the mesh.
    """

    data: int = -1
    """The number of parts into which each batch is split, beside those of fsdp."""
    fsdp: int = 1
    """The number of devices that split parameters, the optimiser's moments and batches. With data = -1 it is a maximum:
    when there are fewer devices, fsdp is all that `model` leaves, so that one configuration serves 1 chip and 256."""
    model: int = 1
    """The number of devices that split heads, feed-forward networks and the vocabulary (tensor parallelism)."""
    documents: Literal["auto", "gather", "ring"] = "auto"
    """How the streaming loss compares every query with every document: each device gathers all documents, or the
    devices pass them on in a ring. "auto" gathers while documents and their gradient take at most 1 GiB per device."""

    def __post_init__(self) -> None:
        sizes = {name: getattr(self, name) for name in ("data", "fsdp", "model")}
        for name, value in sizes.items():
            _require(value == -1 or value > 0, f"mesh.{name} must be positive or -1", value)
        free = [name for name, value in sizes.items() if value == -1]
        _require(len(free) <= 1, "only one mesh axis may be -1", " and ".join(free))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The length of a run, and how often it logs, evaluates and saves.

    A resumed run can change the fields *_every_steps, *_seconds, keep_last, skip_nonfinite_steps and profile_steps.
    """

    steps: int = 0
    """The number of optimiser steps. 0: the number that `epochs` takes."""
    epochs: float = 1.0
    """The number of passes over the training records, if steps is 0."""
    micro_batches: int = 1
    """The number of parts in which the rows of a batch are encoded, one after the other, to save memory. The loss and
    its gradient are those of the whole batch (GradCache, arXiv 2101.06983). Each part is encoded twice."""
    log_every_steps: int = 10
    """The number of steps between lines of metrics.jsonl."""
    evaluate_every_steps: int = 100
    """The number of steps between evaluations on the dev split, which choose the best checkpoint. 0: no evaluation."""
    dev_queries: int = 4096
    """The maximum number of dev queries. Of a larger dev split, queries at equal distances are evaluated, with the
    documents of their records. 0: all."""
    dev_documents: int = 0
    """The number of documents of the training records among which the dev queries also search, beside the documents of
    their own records. In a small dev split, nearly every encoder finds the few documents of the dev records."""
    early_stopping_evaluations: int = 0
    """The number of evaluations in a row without a better dev metric after which the run ends; its best checkpoint is
    the one before them. 0: the run never ends early. The learning rate follows the schedule of the whole run."""
    checkpoint_every_steps: int = 0
    """The number of steps between checkpoints. 0: no checkpoint by the number of steps."""
    checkpoint_every_seconds: float = 600.0
    """The time in seconds after a checkpoint at which the next one is due, whatever the step. 0: no checkpoint by time.
    A run also saves its last step, its best evaluations, and the step at which it is interrupted."""
    hang_seconds: float = 600.0
    """The time in seconds without progress after which a run counts as hung, or 20 median steps if that is longer. Its
    stacks are written to RUN/hang-PROCESS.txt, and it ends with status 4. 0: a run may hang forever."""
    keep_last: int = 2
    """The number of last checkpoints that are kept beside the best one."""
    skip_nonfinite_steps: int = 0
    """The maximum number of steps of a run whose loss or gradient is NaN or infinite. Such a step is counted and
    changes nothing but the step number. One more ends the run. 0: the first one ends the run."""
    profile_steps: tuple[int, int] = (0, 0)
    """The first step and the number of steps whose profiler trace is written to RUN/profile. 0 steps: no trace."""
    seed: int = 0
    """The seed of initial weights, order, chosen documents and dropout."""

    def __post_init__(self) -> None:
        _require(math.isfinite(self.epochs), "epochs must be finite", self.epochs)
        _require(self.steps >= 0, "steps must not be negative", self.steps)
        _require(
            self.steps > 0 or self.epochs > 0, "either steps or epochs must be positive", f"{self.steps}, {self.epochs}"
        )
        for name in ("log_every_steps", "keep_last", "micro_batches"):
            _require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        for name in (
            "evaluate_every_steps",
            "dev_queries",
            "dev_documents",
            "early_stopping_evaluations",
            "checkpoint_every_steps",
            "skip_nonfinite_steps",
        ):
            _require(getattr(self, name) >= 0, f"{name} must not be negative", getattr(self, name))
        for name in ("checkpoint_every_seconds", "hang_seconds"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{name} must be finite and not negative", value)
        rule = "early_stopping_evaluations needs evaluations: evaluate_every_steps must be positive"
        _require(
            self.evaluate_every_steps > 0 or not self.early_stopping_evaluations, rule, self.early_stopping_evaluations
        )
        first, count = self.profile_steps
        rule = "profile_steps must be a first step from 1 on and a number of steps, or 0 0"
        _require((first, count) == (0, 0) or (first > 0 and count > 0), rule, self.profile_steps)
        _require(self.seed >= 0, "seed must not be negative", self.seed)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration of one experiment: all settings that decide what a run learns."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        longest = max(self.encoder.max_query_tokens, self.encoder.max_document_tokens)
        rule = f"row_tokens must be 0 or hold the longest text, {longest} tokens"
        _require(self.data.row_tokens == 0 or self.data.row_tokens >= longest, rule, self.data.row_tokens)
        # With encoder.weights, the folder sets the width, which is known only when the configuration is resolved.
        dims, width = self.loss.matryoshka_dims, self.encoder.dim
        rule = f"matryoshka_dims must be below the length of the vectors, {width}"
        _require(bool(self.encoder.weights) or all(dim < width for dim in dims), rule, dims)
        if self.encoder.query_codes:
            rule = "query_codes need every score: loss.implementation must be auto or dense"
            _require(self.loss.implementation in ("auto", "dense"), rule, self.loss.implementation)
            _require(not dims, "query_codes need the full width: loss.matryoshka_dims must be empty", dims)

    def replace(self, **sections: dict) -> "Config":
        """Returns a copy with fields of sections replaced: CONFIG.replace(optimizer={"learning_rate": 1e-5})."""
        changed = {name: dataclasses.replace(getattr(self, name), **fields) for name, fields in sections.items()}
        return dataclasses.replace(self, **changed)
