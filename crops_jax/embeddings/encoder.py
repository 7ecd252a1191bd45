"""The encoder, which maps texts to unit vectors."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from crops_jax.config import Config
from crops_jax.errors import InputError, NamedFailure, one_line
from crops_jax.models.dual_encoder import DualEncoder, Tower
from crops_jax.models.pooling import unit_norm
from crops_jax.program.progress import ProgressLine
from crops_jax.text import packing, tokenizer
from crops_jax.text.packing import RowBatch, packed_row_width, row_batches

# Rows of 64 tokens were the fastest for short texts; a program is compiled for each width.
_SHORTEST_ROW_TOKENS = 64
_BATCH_TOKENS = 16384
# The fields of an encoder's configuration on which its vectors do not depend.
_NOT_IN_VECTORS = {"weights", "dropout", "attention"}
# encode_document of sentence-transformers uses the first of these prompts that the folder has.
_PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}

_ONLY_OF_FAMILY = {
    "relative_buckets": ("mpnet",),
    "local_rotary_base": ("modernbert", "gemma3"),
    "local_window": ("modernbert", "gemma3"),
    "global_every": ("modernbert", "gemma3"),
    "query_scalar": ("gemma3",),
}
_LEFT_OUT_WHERE_EMPTY = ("query_codes", "dense_widths", "dense_biases", "dense_activations")


class Encoder:
    """A dual encoder with its tokenizer, token limits and prompts.

    Texts are packed into rows (crops_jax.text.packing) of a few shapes: widths are powers of two from 64 to the token
    limit, and a batch has batch_tokens / width, 64 or 8 rows. Therefore few programs are compiled for any texts. The
    rows of a batch are divided among the devices of this process.
    """

    def __init__(
        self,
        model: DualEncoder,
        *,
        config: Config,
        tokenizer_folder: Path,
        prompts: Mapping[str, str] | None = None,
        default_prompt: str = "",
        trained_dims: Sequence[int] | None = None,
        default_dim: int | None = None,
    ):
        """Loads the tokenizer and puts the weights on the devices of this process.

        Args:
          model: the weights; its sizes are those of `config`.
          config: the resolved configuration. Texts are cut at config.encoder.max_query_tokens and max_document_tokens.
          tokenizer_folder: the folder of a Hugging Face tokenizer.
          prompts: the texts that are put before queries or documents, by name (query, document, passage, corpus).
          default_prompt: the text that is put before each text if `encode` gets no tower.
          trained_dims: the numbers of leading components that were trained as vectors, including the full width; None:
            unknown, so any number is accepted.
          default_dim: the number of leading components that `encode` returns by default; None: all.
        """
        self.config = config
        self.trained_dims = None if trained_dims is None else tuple(trained_dims)
        self.default_dim = default_dim
        self.tokenizer_folder = Path(tokenizer_folder)
        self.tokenizer = tokenizer.load(tokenizer_folder)
        self.prompts = dict(prompts or {})
        self.default_prompt = default_prompt
        self._devices = Mesh(np.asarray(jax.local_devices()), ("rows",))
        self._graph, state = nnx.split(model)
        self._state = jax.device_put(state, NamedSharding(self._devices, PartitionSpec()))

    @property
    def dim(self) -> int:
        """The number of components of the vectors that `encode` returns by default."""
        return self.default_dim or self.config.encoder.dim

    def checked_dim(self, dim: int | None) -> int:
        """Returns `dim`, or the default number of components if it is None.

        Raises InputError if the encoder has no vectors of that length.
        """
        if dim is None:
            return self.dim
        width = self.config.encoder.dim
        if not 1 <= dim <= width:
            raise InputError(f"vectors of this encoder have 1 to {width} components, found dim {dim}")
        if self.trained_dims is not None and dim not in self.trained_dims:
            known = ", ".join(map(str, self.trained_dims))
            raise InputError(
                f"the first {dim} components were not trained to be vectors by themselves; this encoder has vectors of "
                f"{known}: choose one of these, or train with --loss.matryoshka-dims {dim}"
            )
        return dim

    @property
    def model(self) -> DualEncoder:
        """The dual encoder with the encoder's weights."""
        return nnx.merge(self._graph, self._state)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as a nested dictionary of arrays, with the paths of crops_jax.models.dual_encoder."""
        return nnx.to_pure_dict(self._state)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all that the vectors depend on: weights, sizes, limits, prompts and tokenizer."""
        sizes = {name: value for name, value in asdict(self.config.encoder).items() if name not in _NOT_IN_VECTORS}
        # Encoders keep the fingerprint that they had before there were fields that do not concern them.
        for name in _LEFT_OUT_WHERE_EMPTY:
            if not sizes[name]:
                del sizes[name]
        for name, families in _ONLY_OF_FAMILY.items():
            if self.config.encoder.family not in families:
                del sizes[name]
        settings = [sizes, self.prompts, self.default_prompt, tokenizer.fingerprint(self.tokenizer_folder)]
        settings += [] if self.default_dim is None else [self.default_dim]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.parameters):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def max_tokens(self, tower: Tower) -> int:
        """Returns the token limit of a tower."""
        limits = self.config.encoder
        return limits.max_query_tokens if tower == "query" else limits.max_document_tokens

    def prompt(self, tower: Tower | None) -> str:
        """Returns the text that `encode` puts before each text of a tower, or by default if the tower is None."""
        if tower is None:
            return self.default_prompt
        return next((self.prompts[name] for name in _PROMPT_NAMES[tower] if name in self.prompts), "")

    def encode(
        self,
        texts: Sequence[str],
        *,
        tower: Tower | None = None,
        dim: int | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> Float32[np.ndarray, "texts dim"]:
        """Returns the unit vectors of texts, in their order.

        Args:
          texts: any strings, including the empty string. A query should have the form of `text.normalise_query`, a
            document that of `text.document_text`. Tokens beyond the tower's token limit are cut off.
          tower: "query" or "document", which decides weights, token limit and prompt. None: the weights and the limit
            of documents with the default prompt, like encode of sentence-transformers.
          dim: the number of leading components to return, normalised again (Matryoshka); None: `self.dim`.
          batch_tokens: the number of tokens in a batch, including padding; a batch has at least one row for each
            device. None: 2,048 on a CPU and 16,384 on other devices.
          progress: whether to show a progress bar on standard error.

        Raises:
          TypeError: texts is no sequence of strings.
          ValueError: the tower is not "query" or "document".
          InputError: the tokenizer has more tokens than the model, or vectors of `dim` components were not trained.
          NamedFailure: a vector is not finite, so the weights are damaged or have diverged; it names the first text.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a sequence of strings, found one string: {texts[:40]!r}")
        if others := sorted({type(text).__name__ for text in texts if not isinstance(text, str)}):
            raise TypeError(f"texts must be a sequence of strings, found {others[0]} in it")
        if tower is not None and tower not in _PROMPT_NAMES:
            raise ValueError(f"tower must be {' or '.join(_PROMPT_NAMES)}, found {tower!r}")
        if batch_tokens is None:
            batch_tokens = packing.batch_tokens(self._devices.devices.flat[0].platform, elsewhere=_BATCH_TOKENS)
        if batch_tokens <= 0:
            raise ValueError(f"batch_tokens must be positive, found {batch_tokens}")
        dim = self.checked_dim(dim)
        if not len(texts):
            return np.zeros((0, dim), np.float32)
        tokens = self._tokens(texts, tower)
        vectors_of = functools.partial(self._vectors, tower=tower or "document", dim=dim, batch_tokens=batch_tokens)
        vectors = vectors_of(tokens, progress=progress)
        # The texts beside such a text in a packed row get such vectors too, so each is encoded alone.
        self._check_finite(texts, vectors, alone=lambda text: vectors_of([tokens[text]]))
        return vectors

    def encode_query(self, texts: Sequence[str], **options: Any) -> Float32[np.ndarray, "texts dim"]:
        """Returns the unit vectors of queries: `encode` with tower="query". options: its other arguments."""
        return self.encode(texts, tower="query", **options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> Float32[np.ndarray, "texts dim"]:
        """Returns the unit vectors of documents: `encode` with tower="document". options: its other arguments."""
        return self.encode(texts, tower="document", **options)

    @staticmethod
    def similarity(
        queries: Float32[np.ndarray, "queries dim"], documents: Float32[np.ndarray, "documents dim"]
    ) -> Float32[np.ndarray, "queries documents"]:
        """Returns the cosine of every query and document, whose vectors have unit length.

        Raises ValueError if the vectors are no arrays or do not have two dimensions and one length.
        """
        if other := next((type(v).__name__ for v in (queries, documents) if not hasattr(v, "ndim")), None):
            raise ValueError(f"similarity: vectors must be arrays of JAX or NumPy, found {other}")
        if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
            raise ValueError(
                f"similarity: vectors must be [queries, dim] and [documents, dim], found {queries.shape} and "
                f"{documents.shape}"
            )
        return queries @ documents.T

    def __repr__(self) -> str:
        encoder = self.config.encoder
        towers = "shared towers" if encoder.shared_towers else "two towers"
        return (
            f"{type(self).__name__}({encoder.family}, layers {encoder.layers}, dim {self.dim}, {towers}, at most "
            f"{encoder.max_query_tokens} tokens of a query and {encoder.max_document_tokens} of a document)"
        )

    def _check_finite(
        self,
        texts: Sequence[str],
        vectors: Float32[np.ndarray, "texts ..."],
        *,
        alone: Callable[[int], Float32[np.ndarray, "1 ..."]] | None = None,
    ) -> None:
        """Raises NamedFailure if a vector is not finite, with the first text that gives one.

        alone: encodes the text of a number by itself, where the vector of a text depends on those beside it.
        """
        wrong = np.flatnonzero(~np.isfinite(vectors.reshape(len(vectors), -1)).all(axis=1)).tolist()
        if not wrong:
            return
        first = wrong[0]
        if alone is not None:
            first = next((text for text in wrong if not np.isfinite(alone(text)).all()), first)
        raise NamedFailure(
            f"{self.config.encoder.weights or self.tokenizer_folder.parent}: the vector of the text "
            f"{one_line(repr(texts[first]), limit=80)} is not finite, so the weights are damaged or have diverged; "
            "take an earlier checkpoint, or copy the folder again"
        )

    def _vectors(
        self,
        tokens: Sequence[np.ndarray],
        *,
        tower: Tower,
        dim: int,
        batch_tokens: int,
        progress: bool = False,
    ) -> Float32[np.ndarray, "texts dim"]:
        vectors = np.zeros((len(tokens), dim), np.float32)
        widths = encoder_row_widths(self.max_tokens(tower))
        batches = row_batches(tokens, widths=widths, batch_tokens=batch_tokens, multiple=self._devices.size)
        with ProgressLine(total=len(tokens), unit="texts", desc="embedding", disable=not progress) as bar:
            for batch in batches:
                vectors[batch.texts] = self._run(batch, tower, dim)
                bar.update(len(batch.texts))
        return vectors

    def _tokens(self, texts: Sequence[str], tower: Tower | None) -> list[np.ndarray]:
        """Returns the tokens of texts with the prompt of a tower, cut at its limit."""
        prompt = self.prompt(tower)
        tokens = self.tokenizer.encode(
            [prompt + text for text in texts], max_tokens=self.max_tokens(tower or "document")
        )
        self._check_vocabulary(tokens)
        return tokens

    def _run(self, batch: RowBatch, tower: Tower, dim: int) -> Float32[np.ndarray, "packed dim"]:
        rows = NamedSharding(self._devices, PartitionSpec("rows"))
        tokens, segments = (jax.device_put(array, rows) for array in (batch.tokens, batch.segments))
        vectors = np.asarray(_encode(self._graph, self._state, tokens, segments, tower=tower, dim=dim))
        return vectors.reshape(-1, dim)[batch.places]

    def _check_vocabulary(self, tokens: Sequence[np.ndarray]) -> None:
        rows = self.config.encoder.vocabulary_size
        largest = max((int(row.max()) for row in tokens if len(row)), default=0)
        if largest >= rows:
            raise InputError(
                f"{self.tokenizer_folder}: token {largest} is beyond the {rows} rows of the model's "
                "vocabulary; the tokenizer is not this model's"
            )


@functools.partial(jax.jit, static_argnames=("graph", "tower", "dim"))
def _encode(
    graph: Any, state: Any, tokens: Array, segments: Array, *, tower: Tower, dim: int
) -> Float[Array, "rows texts dim"]:
    vectors = nnx.merge(graph, state).encode_rows(tokens, segments, tower=tower)
    return vectors if dim == vectors.shape[-1] else unit_norm(vectors[..., :dim])


def encoder_row_widths(limit: int) -> tuple[int, ...]:
    """Returns the row widths for texts of at most `limit` tokens: powers of two from 64 and one for the longest."""
    widths = []
    while (width := _SHORTEST_ROW_TOKENS << len(widths)) < limit:
        widths.append(width)
    return (*widths, min(width, packed_row_width(limit)))
