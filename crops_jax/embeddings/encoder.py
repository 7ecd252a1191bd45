"""An encoder ready for use: texts in, unit vectors out."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32
from tqdm import tqdm

from crops_jax.config import Config
from crops_jax.errors import InputError
from crops_jax.models.dual_encoder import DualEncoder, Tower
from crops_jax.models.pooling import unit_norm
from crops_jax.text import packing, tokenizer
from crops_jax.text.packing import RowBatch, row_batches, row_width

# Rows of 64 tokens were the fastest for short texts, and each width is a program to compile.
_SHORTEST_ROW_TOKENS = 64
_BATCH_TOKENS = 16384
# Of an encoder's configuration, what does not decide its vectors.
_NOT_IN_VECTORS = {"weights", "dropout", "attention"}
# sentence-transformers' encode_document takes the first of these prompts that the folder has.
_PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}


class Encoder:
    """A dual encoder with its tokenizer, token limits and prompts.

    Texts are packed into rows (crops_jax.text.packing) of a few shapes: widths are powers of two from 64 up to the
    token limit, heights are batch_tokens / width, 64 or 8. So few programs are compiled, whatever is asked. The rows of
    a batch are divided among the devices of this process.
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
    ):
        """
        Args:
          model: the weights; its sizes are those of `config`.
          config: resolved. config.encoder.max_query_tokens and max_document_tokens cut the texts.
          tokenizer_folder: a Hugging Face tokenizer.
          prompts: put before texts, by name (query, document, passage, corpus).
          default_prompt: put before texts when encode is given no tower.
          trained_dims: the numbers of leading components that were trained to serve as vectors, the full width among
            them; None: not known, so any is taken.
        """
        self.config = config
        self.trained_dims = None if trained_dims is None else tuple(trained_dims)
        self.tokenizer_folder = Path(tokenizer_folder)
        self.tokenizer = tokenizer.load(tokenizer_folder)
        self.prompts = dict(prompts or {})
        self.default_prompt = default_prompt
        self._devices = Mesh(np.asarray(jax.local_devices()), ("rows",))
        self._graph, state = nnx.split(model)
        self._state = jax.device_put(state, NamedSharding(self._devices, PartitionSpec()))

    @property
    def dim(self) -> int:
        """Length of the vectors, when nothing else is asked for."""
        return self.config.encoder.width

    def checked_dim(self, dim: int | None) -> int:
        """`dim`, or all components for None. Raises InputError where vectors of that length mean nothing."""
        if dim is None:
            return self.dim
        if not 1 <= dim <= self.dim:
            raise InputError(f"vectors of this encoder have 1 to {self.dim} components, found dim {dim}")
        if self.trained_dims is not None and dim not in self.trained_dims:
            known = ", ".join(map(str, self.trained_dims))
            raise InputError(
                f"the first {dim} components were not trained to be vectors by themselves; this encoder has vectors of "
                f"{known}: choose one of these, or train with --loss.matryoshka-dims {dim}"
            )
        return dim

    @property
    def model(self) -> DualEncoder:
        return nnx.merge(self._graph, self._state)

    @property
    def parameters(self) -> dict[str, Any]:
        """Nested dictionary of arrays; paths as in crops_jax.models.dual_encoder."""
        return nnx.to_pure_dict(self._state)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the vectors: weights, sizes, limits, prompts and tokenizer."""
        sizes = {name: value for name, value in asdict(self.config.encoder).items() if name not in _NOT_IN_VECTORS}
        said = [sizes, self.prompts, self.default_prompt, tokenizer.fingerprint(self.tokenizer_folder)]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.parameters):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def max_tokens(self, tower: Tower) -> int:
        limits = self.config.encoder
        return limits.max_query_tokens if tower == "query" else limits.max_document_tokens

    def encode(
        self,
        texts: Sequence[str],
        *,
        tower: Tower | None = None,
        dim: int | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> Float32[np.ndarray, "texts dim"]:
        """Unit vectors of texts, in their order.

        Args:
          texts: any strings, the empty one included. A query should have the form of `text.normalise_query`, a
            document that of `text.document_text`. What lies beyond the tower's token limit is cut off.
          tower: "query" or "document", which decides weights, token limit and prompt. None: the document's weights
            and limit with the folder's default prompt, as sentence-transformers' encode does.
          dim: so many leading components, normalised again (Matryoshka); None: all.
          batch_tokens: tokens of one batch, padding included; at least one row a device goes into it, however small.
            None: 2,048 on a CPU and 16,384 elsewhere.
          progress: shows a bar on standard error.

        Raises InputError where the tokenizer knows more tokens than the model, or where `dim` components were not
        trained.
        """
        if isinstance(texts, str):
            raise TypeError(f"texts must be a sequence of strings, found one string: {texts[:40]!r}")
        if batch_tokens is None:
            batch_tokens = packing.batch_tokens(self._devices.devices.flat[0].platform, elsewhere=_BATCH_TOKENS)
        if batch_tokens <= 0:
            raise ValueError(f"batch_tokens must be positive, found {batch_tokens}")
        dim = self.checked_dim(dim)
        vectors = np.zeros((len(texts), dim), np.float32)
        if not len(texts):
            return vectors
        limit = self.max_tokens(tower or "document")
        prompt = self._prompt(tower)
        tokens = self.tokenizer.encode([prompt + text for text in texts], max_tokens=limit)
        self._check_vocabulary(tokens)
        batches = row_batches(tokens, widths=row_widths(limit), batch_tokens=batch_tokens, multiple=self._devices.size)
        with tqdm(total=len(texts), unit="text", desc="embedding", disable=not progress) as bar:
            for batch in batches:
                vectors[batch.texts] = self._run(batch, tower or "document", dim)
                bar.update(len(batch.texts))
        return vectors

    def _run(self, batch: RowBatch, tower: Tower, dim: int) -> Float32[np.ndarray, "packed dim"]:
        rows = NamedSharding(self._devices, PartitionSpec("rows"))
        tokens, segments = (jax.device_put(array, rows) for array in (batch.tokens, batch.segments))
        vectors = np.asarray(_encode(self._graph, self._state, tokens, segments, tower=tower, dim=dim))
        return vectors.reshape(-1, dim)[batch.places]

    def _prompt(self, tower: Tower | None) -> str:
        if tower is None:
            return self.default_prompt
        return next((self.prompts[name] for name in _PROMPT_NAMES[tower] if name in self.prompts), "")

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


def row_widths(limit: int) -> tuple[int, ...]:
    """Widths of rows for texts of at most `limit` tokens: powers of two from 64 on, and one that holds the longest."""
    widths = []
    while (width := _SHORTEST_ROW_TOKENS << len(widths)) < limit:
        widths.append(width)
    return (*widths, min(width, row_width(limit)))
