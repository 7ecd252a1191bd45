"""The relevance discriminator (theta) by a cross-encoder: theta(query, document) = sigmoid(logit / T).

Pairs are scored in sorted batches of few shapes, which are divided among devices.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32, Int32, Int64
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from crops_jax.artifacts import write_text
from crops_jax.artifacts.atomic import replaced_file
from crops_jax.config import EncoderConfig
from crops_jax.devices.sharding import path_name
from crops_jax.discriminator.calibration import UNSCALED, Scaling
from crops_jax.discriminator.interface import DESCRIPTION, describe
from crops_jax.errors import InputError, NamedFailure
from crops_jax.models.cross_encoder import CrossEncoder, from_parameters
from crops_jax.program.progress import ProgressLine
from crops_jax.text import QUERY_FORM, tokenizer
from crops_jax.text.packing import batch_tokens
from crops_jax.text.pair_tokens import TokenizedPairs, pair_row_width

KIND = "cross_encoder"
TOKENIZER = "tokenizer"
WEIGHTS = "cross_encoder.safetensors"
# The fields of EncoderConfig on which a trained cross-encoder does not depend.
_NOT_KEPT = {"weights", "dropout", "attention", "pooling", "shared_towers", "max_query_tokens", "max_document_tokens"}
# The number of tokens in a batch on devices other than CPUs.
_BATCH_TOKENS = 65536


class CrossEncoderDiscriminator:
    """A cross-encoder with its tokenizer and its calibration; see `crops_jax.discriminator.Discriminator`.

    Pairs are sorted by length and padded to one of at most four widths. All batches of a width have the same number
    of rows, including rows of padding, and are divided among the devices of this process. Therefore few programs are
    compiled, and the score of a pair does not depend on the other pairs.
    """

    pairs_at_once = 4096
    """The pairs in one call, after which progress moves and a cache of scores is written; more are hardly faster."""

    def __init__(
        self,
        model: CrossEncoder,
        *,
        config: EncoderConfig,
        max_tokens: int,
        tokenizer_folder: Path,
        scaling: Scaling = UNSCALED,
        report: dict[str, Any] | None = None,
    ):
        """Loads the tokenizer and puts the weights on the devices of this process.

        Args:
          model: the weights; its sizes are those of `config`.
          config: the sizes of the tower.
          max_tokens: the token limit of a pair, see `crops_jax.text.pair_tokens.TokenizedPairs`.
          tokenizer_folder: the folder of a Hugging Face tokenizer.
          scaling: the calibration of the logits.
          report: the report of the training, see `crops_jax.discriminator.report.calibrate`.
        """
        self.config, self.max_tokens, self.scaling = config, max_tokens, scaling
        self.report = report or {}
        self._tokenizer_folder = Path(tokenizer_folder)
        self._tokenizer = tokenizer.load(tokenizer_folder)
        self._devices = Mesh(np.asarray(jax.local_devices()), ("rows",))
        self._graph, state = nnx.split(model)
        self._state = jax.device_put(state, NamedSharding(self._devices, PartitionSpec()))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all that the scores depend on: weights, sizes, token limit, calibration,
        tokenizer and the normal form of queries."""
        settings = [_sizes(self.config), self.max_tokens, *self.scaling, self._tokenizer.fingerprint, QUERY_FORM]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, array in sorted(self._weights().items()):
            digest.update(name.encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def score(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool = False
    ) -> Float32[np.ndarray, "pairs"]:
        """Returns theta of each pair; see `Discriminator.score`.

        Args:
          queries: the query of each pair.
          documents: the document of each pair.
          progress: whether to show a progress bar on standard error.

        Raises:
          InputError: the tokenizer has more tokens than the model.
          NamedFailure: a logit is not finite, so the weights are not finite either.
        """
        logits = self.logits(queries, documents, progress=progress)
        return self.scaling.probabilities(logits).astype(np.float32)

    def logits(
        self, queries: Sequence[str], documents: Sequence[str], *, progress: bool = False
    ) -> Float32[np.ndarray, "pairs"]:
        """Returns the logits of the pairs, without their calibration; see `score`."""
        if isinstance(queries, str) or isinstance(documents, str) or len(queries) != len(documents):
            raise TypeError("queries and documents must be sequences of strings, one of each for a pair")
        result = np.zeros(len(queries), np.float32)
        if not len(queries):
            return result
        pairs = TokenizedPairs(queries, documents, tokenizer=self._tokenizer, max_tokens=self.max_tokens)
        if pairs.greatest_token >= self.config.vocabulary_size:
            raise InputError(
                f"{self._tokenizer_folder}: token {pairs.greatest_token} is beyond the {self.config.vocabulary_size} "
                "rows of the model's vocabulary; the tokenizer is not this model's"
            )
        with ProgressLine(total=len(pairs), unit="pairs", desc="scoring", disable=not progress) as bar:
            for width, chosen in self._batches(pairs.lengths):
                tokens, types = pairs.rows(chosen, width=width)
                real = chosen >= 0
                result[chosen[real]] = self._run(tokens, types)[real]
                bar.update(int(real.sum()))
        if not np.isfinite(result).all():
            raise NamedFailure(
                "the cross-encoder computes scores that are not finite, so its weights are not finite either"
            )
        return result

    def save(self, folder: Path | str) -> None:
        """Writes the files that `load` reads: discriminator.json, the weights as safetensors, and the tokenizer."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self._tokenizer_folder.resolve() != (folder / TOKENIZER).resolve():
            tokenizer.copy(self._tokenizer_folder, folder / TOKENIZER)
        with replaced_file(folder / WEIGHTS) as temporary:
            save_file(self._weights(), temporary)
        description = {
            "kind": KIND,
            "encoder": _sizes(self.config),
            "max_tokens": self.max_tokens,
            **self.scaling._asdict(),
            "report": self.report,
        }
        write_text(folder / DESCRIPTION, json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path | str) -> "CrossEncoderDiscriminator":
        """Returns a discriminator that `save` wrote. Raises InputError if files are missing or broken."""
        folder = Path(folder)
        description = describe(folder)
        try:
            max_tokens = int(description["max_tokens"])
            config = EncoderConfig(
                **description["encoder"], max_query_tokens=max_tokens, max_document_tokens=max_tokens
            )
            parameters = unflatten_dict(load_file(folder / WEIGHTS), sep="/")
            return cls(
                from_parameters(config, parameters),
                config=config,
                max_tokens=max_tokens,
                tokenizer_folder=folder / TOKENIZER,
                scaling=Scaling(float(description["temperature"]), float(description["bias"])),
                report=description["report"],
            )
        except (KeyError, ValueError, TypeError, OSError, SafetensorError) as error:
            raise InputError(f"{folder}: not a readable discriminator ({error}); train it again") from error

    def _batches(self, lengths: Int64[np.ndarray, "pairs"]) -> Iterator[tuple[int, Int64[np.ndarray, "rows"]]]:
        """Yields the width and the pairs of each batch, the longest pairs first; -1 is a row of padding."""
        order = np.argsort(-lengths, kind="stable")
        devices = self._devices.size
        tokens = batch_tokens(self._devices.devices.flat[0].platform, elsewhere=_BATCH_TOKENS)
        start = 0
        while start < len(order):
            width = pair_row_width(int(lengths[order[start]]), self.max_tokens)
            rows = -(-max(1, tokens // width) // devices) * devices
            chosen = order[start : start + rows]
            yield width, np.concatenate([chosen, np.full(rows - len(chosen), -1)])
            start += len(chosen)

    def _run(
        self, tokens: Int32[np.ndarray, "rows width"], types: Int32[np.ndarray, "rows width"]
    ) -> Float32[np.ndarray, "rows"]:
        sharding = NamedSharding(self._devices, PartitionSpec("rows"))
        return np.asarray(_logits(self._graph, self._state, *jax.device_put((tokens, types), sharding)))

    def _weights(self) -> dict[str, Float32[np.ndarray, "..."]]:
        leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(self._state))
        return {path_name(path): np.ascontiguousarray(leaf, np.float32) for path, leaf in leaves}


@functools.partial(jax.jit, static_argnames="graph")
def _logits(
    graph: Any, state: Any, tokens: Int32[Array, "rows width"], types: Int32[Array, "rows width"]
) -> Float[Array, "rows"]:
    return nnx.merge(graph, state)(tokens, types)


def _sizes(config: EncoderConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _NOT_KEPT}
