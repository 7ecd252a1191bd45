"""The configuration of the tower that encodes texts."""

from dataclasses import dataclass
from typing import Literal

from crops_jax.config.rule import require
from crops_jax.storage import InputPath


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
    """The number of learnt codes of a Poly-encoder (crops_jax.models.poly_encoder), which gives a query as many
    vectors. Its score is slow, so it reranks (launch.evaluate --rerank-by). 0: a dual encoder, with one vector of a
    query."""
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
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.key_value_heads >= 0, "key_value_heads must not be negative", self.key_value_heads)
        require(self.head_width >= 0, "head_width must not be negative", self.head_width)
        if not (self.is_decoder or self.family == "gemma3"):
            unset = not (self.key_value_heads or self.head_width)
            require(
                unset,
                "key_value_heads and head_width are those of Qwen, Mistral and Gemma",
                f"{self.key_value_heads} and {self.head_width}",
            )
        self._check_dense()
        if self.family == "hashed":
            self._check_features()
        else:
            self._check_heads()
        require(self.type_vocabulary_size > 0, "type_vocabulary_size must be positive", self.type_vocabulary_size)
        require(self.position_offset >= 0, "position_offset must not be negative", self.position_offset)
        require(0 <= self.dropout < 1, "dropout must lie in [0, 1)", self.dropout)
        flash = self.attention == "flash"
        require(not (flash and self.dropout), "attention 'flash' has no dropout; dropout must be 0", self.dropout)
        require(not flash or self.family != "hashed", "attention must be 'auto' for a tower without any", "flash")
        rule = f"attention 'flash' cannot compute that of {self.family}"
        require(not flash or self.has_flash_attention, rule, "flash")
        for name in ("local_window", "global_every"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        require(self.query_scalar >= 0, "query_scalar must not be negative", self.query_scalar)
        require(self.local_rotary_base > 0, "local_rotary_base must be positive", self.local_rotary_base)
        buckets = self.relative_buckets
        require(buckets >= 4 and buckets % 2 == 0, "relative_buckets must be even and at least 4", buckets)
        require(self.query_codes >= 0, "query_codes must not be negative", self.query_codes)
        longest = self.max_positions - self.position_offset
        for name in ("max_query_tokens", "max_document_tokens"):
            value = getattr(self, name)
            rule = f"{name} must lie in [3, max_positions - position_offset] = [3, {longest}]"
            require(3 <= value <= longest, rule, value)

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
            require(self.width % self.heads == 0, "width must be a multiple of heads", sizes)
        groups = self.key_value_heads or self.heads
        require(self.heads % groups == 0, "heads must be a multiple of key_value_heads", f"{self.heads} and {groups}")
        if self.is_rotary:
            width = self.head_width or self.width // self.heads
            require(width % 2 == 0, "rotary positions need heads of even width", width)
            require(self.rotary_base > 0, "rotary_base must be positive", self.rotary_base)

    def _check_dense(self) -> None:
        widths = self.dense_widths
        require(all(width > 0 for width in widths), "dense_widths must be positive", widths)
        counts = (len(widths), len(self.dense_biases), len(self.dense_activations))
        rule = "dense_widths, dense_biases and dense_activations must name equally many Dense modules"
        require(len(set(counts)) == 1, rule, ", ".join(map(str, counts)))
        rule = "query_codes need the states of tokens: dense_widths must be empty"
        require(not (widths and self.query_codes), rule, widths)
        rule = "a hashed tower has a network of its own: dense_widths must be empty"
        require(not widths or self.family != "hashed", rule, widths)

    def _check_features(self) -> None:
        features = self.hashed_features
        distinct = 0 < len(features) == len(set(features))
        require(distinct, "hashed_features must name one feature or more, each once", features)
        require(self.feature_width > 0, "feature_width must be positive", self.feature_width)
        require(0 < self.hash_buckets < 2**31, "hash_buckets must lie in [1, 2^31)", self.hash_buckets)
        require(self.pooling == "mean", "hashed features are pooled by their mean", self.pooling)
        require(
            not self.query_codes, "hashed towers have no token states for query_codes; it must be 0", self.query_codes
        )
