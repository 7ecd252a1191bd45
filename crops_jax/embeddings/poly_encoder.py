"""The encoder of a Poly-encoder, which maps a document to a unit vector and a query to a unit vector for each code."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from crops_jax.embeddings.encoder import Encoder
from crops_jax.program.progress import ProgressLine
from crops_jax.text.packing import PADDING_TOKEN

_QUERIES_AT_ONCE = 64


class PolyEncoder(Encoder):
    """A Poly-encoder with its tokenizer and token limits. `encode` is for its documents (tower "document")."""

    @property
    def temperature(self) -> float:
        """The learnt temperature, which the score needs (crops_jax.models.poly_encoder)."""
        return math.exp(-float(self.parameters["log_inverse_temperature"]))

    def contexts(self, queries: Sequence[str], *, progress: bool = False) -> Float32[np.ndarray, "queries codes dim"]:
        """Returns the context vectors of queries, in their order.

        Args:
          queries: any strings; see `Encoder.encode`.
          progress: whether to show a progress bar on standard error.

        Raises InputError if the tokenizer has more tokens than the model, and NamedFailure if a vector is not finite.
        """
        limits = self.config.encoder
        found = np.zeros((len(queries), limits.query_codes, limits.width), np.float32)
        tokens = self._tokens(queries, "query")
        size = _QUERIES_AT_ONCE * self._devices.size
        rows = NamedSharding(self._devices, PartitionSpec("rows"))
        with ProgressLine(total=len(queries), unit="queries", desc="embedding queries", disable=not progress) as bar:
            for start in range(0, len(tokens), size):
                part = tokens[start : start + size]
                padded = np.full((size, limits.max_query_tokens), PADDING_TOKEN, np.int32)
                for row, text in zip(padded, part):
                    row[: len(text)] = text
                encoded = _contexts(self._graph, self._state, jax.device_put(padded, rows))
                found[start : start + len(part)] = np.asarray(encoded)[: len(part)]
                bar.update(len(part))
        self._check_finite(queries, found)
        return found


@functools.partial(jax.jit, static_argnames="graph")
def _contexts(graph: Any, state: Any, tokens: Array) -> Float[Array, "queries codes dim"]:
    return nnx.merge(graph, state).encode_contexts(tokens)
