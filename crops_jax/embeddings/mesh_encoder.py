"""Vectors of tokens by the parameters of a run that is being trained, over the mesh on which it trains."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float32, Int32

from crops_jax.config import Config
from crops_jax.devices import processes, sharding
from crops_jax.models.dual_encoder import Tower
from crops_jax.program.progress import ProgressLine
from crops_jax.text.packing import batch_tokens, packed_row_width, row_batches

_BATCH_TOKENS = 16_384


class MeshEncoder:
    """Encodes packed rows of tokens with given parameters, which can be split over the mesh.

    Every process of a cluster has to call it with the same texts, and gets all vectors.
    """

    def __init__(self, model: nnx.Module, config: Config, *, mesh: Mesh):
        """
        Args:
          model: the model, of which only the structure is used.
          config: the configuration, for the token limits and the width.
          mesh: the devices that encode.
        """
        self._mesh, self._dim = mesh, config.encoder.dim
        self._width = packed_row_width(config.encoder.max_query_tokens, config.encoder.max_document_tokens)
        graph, _, others = nnx.split(model, nnx.Param, ...)

        def encode(parameters: dict, tokens: jax.Array, segments: jax.Array, tower: Tower) -> jax.Array:
            with sharding.traced_over(mesh):
                merged: Any = nnx.merge(graph, nnx.State(jax.tree.map(nnx.Param, parameters)), others, copy=True)
                return merged.encode_rows(tokens, segments, tower=tower)

        self._encode: Callable = jax.jit(encode, static_argnames="tower", out_shardings=sharding.replicated(mesh))

    def __call__(
        self, parameters: dict, texts: Sequence[Int32[np.ndarray, "tokens"]], tower: Tower, *, description: str
    ) -> Float32[np.ndarray, "texts dim"]:
        """Returns the unit vectors of texts, without dropout.

        Args:
          parameters: the parameters, over the mesh.
          texts: the tokens of each text, at most as many as the tower takes.
          tower: the tower that encodes them.
          description: the text of the progress line.
        """
        vectors = np.zeros((len(texts), self._dim), np.float32)
        layout = sharding.batch_sharding(self._mesh)
        size = batch_tokens(self._mesh.devices.flat[0].platform, elsewhere=_BATCH_TOKENS)
        silent = not processes.current().is_first
        with ProgressLine(total=len(texts), desc=description, unit="texts", leave=False, disable=silent) as bar:
            for batch in row_batches(
                texts, widths=(self._width,), batch_tokens=size, multiple=sharding.num_groups(self._mesh)
            ):
                tokens, segments = (sharding.spread(array, layout) for array in (batch.tokens, batch.segments))
                encoded = np.asarray(self._encode(parameters, tokens, segments, tower=tower))
                vectors[batch.texts] = encoded.reshape(-1, self._dim)[batch.places]
                bar.update(len(batch.texts))
        return vectors
