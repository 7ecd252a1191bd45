"""The lexical relevance discriminator (theta): logistic regression on word overlap, fitted on the logs in seconds."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import typed
from crops_jax.discriminator.calibration import Scaling, fit_logistic_regression, fit_scaling, sigmoid
from crops_jax.discriminator.interface import DESCRIPTION, describe
from crops_jax.discriminator.lexical_features import FEATURES, CorpusStatistics, pair_features
from crops_jax.discriminator.populations import Populations, calibration_report
from crops_jax.discriminator.slices import LEXICAL, slices
from crops_jax.errors import InputError
from crops_jax.text.forms import distinct

_CORPUS = "corpus.npz"


class LexicalDiscriminator:
    """A logistic regression on lexical features (crops_jax.discriminator.lexical_features), with a temperature T.

    theta(q, d) = sigmoid((w . features(q, d) + b) / T + c)

    The queries are divided into three slices by hash: w and b are fitted on six tenths of them, T and c on two tenths,
    and the expected calibration error without and with T and c is measured on the other two tenths. If a slice is empty
    or has only one target, all pairs are used to fit and to measure, and `report` says so.
    """

    pairs_at_once = 2_000_000
    fingerprint = None

    def __init__(
        self,
        *,
        corpus: CorpusStatistics,
        weights: Float64[np.ndarray, "features_and_1"],
        scaling: Scaling,
        report: dict,
    ):
        self.corpus = corpus
        self.weights = weights
        self.scaling = scaling
        self.report = report
        """The report of the fit: pairs, queries, mean_target, calibrated_on ("held-out queries" or "the pairs it was
        fitted on"), and the fields of `crops_jax.discriminator.populations.calibration_report`."""

    @classmethod
    def fit(
        cls,
        queries: Sequence[str],
        documents: Sequence[str],
        targets: Float64[np.ndarray, "pairs"],
        *,
        corpus: CorpusStatistics | Iterable[str],
        populations: Populations | None = None,
    ) -> "LexicalDiscriminator":
        """Fits the weights and their calibration.

        Args:
          queries, documents: the query and the document of each pair, as text.
          targets: in [0, 1]: 1 for a relevant or clicked document, 0 for another.
          corpus: the texts of the documents, or their statistics.
          populations: the population of each pair, which decides its weight in the calibration; None if all pairs
            belong to the pool.

        Raises:
          InputError: all targets are equal, so nothing can be learnt.
        """
        targets = np.asarray(targets, np.float64)
        if len(targets) == 0 or targets.min() == targets.max():
            raise InputError(
                f"discriminator: {len(targets)} training pairs, all with the same target; it needs pairs that answer "
                "the query and pairs that do not (judgements of several grades, or clicks)"
            )
        if not isinstance(corpus, CorpusStatistics):
            corpus = CorpusStatistics.from_texts(corpus)
        features = _features(queries, documents, corpus)
        if populations is None:
            populations = Populations.only_pool(len(targets))
        fit, tune, measure, held_out = slices(queries, targets, LEXICAL)
        weights = fit_logistic_regression(features[fit], targets[fit])
        logits = features @ weights[:-1] + weights[-1]
        scaling = fit_scaling(logits[tune], targets[tune], weights=populations.of(tune).weights())
        report = {
            "pairs": len(targets),
            "queries": len(set(queries)),
            "mean_target": round(float(targets.mean()), 6),
            "calibrated_on": "held-out queries" if held_out else "the pairs it was fitted on",
            **calibration_report(sigmoid(logits), scaling.probabilities(logits), targets, populations, measure),
        }
        return cls(corpus=corpus, weights=weights, scaling=scaling, report=report)

    def score(self, queries: Sequence[str], documents: Sequence[str]) -> Float32[np.ndarray, "pairs"]:
        """Returns theta of each pair; see `Discriminator.score`."""
        logits = _features(queries, documents, self.corpus) @ self.weights[:-1] + self.weights[-1]
        return self.scaling.probabilities(logits).astype(np.float32)

    def save(self, folder: Path | str) -> None:
        """Writes discriminator.json and corpus.npz; the same discriminator always writes the same bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        words = sorted(self.corpus.frequency)
        np.savez_compressed(
            folder / _CORPUS,
            words=np.frombuffer("\n".join(words).encode(), np.uint8),
            frequency=np.array([self.corpus.frequency[word] for word in words], np.int64),
        )
        description = {
            "kind": "lexical",
            "features": list(FEATURES),
            "weights": self.weights.tolist(),
            **self.scaling._asdict(),
            "documents": self.corpus.documents,
            "average_length": self.corpus.average_length,
            "report": self.report,
        }
        write_text(folder / DESCRIPTION, json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path | str) -> "LexicalDiscriminator":
        """Returns a discriminator that `save` wrote. Raises InputError if files are missing or broken."""
        folder = Path(folder)
        description = describe(folder)
        try:
            if description["features"] != list(FEATURES):
                raise ValueError(f"features {description['features']} are not those of this version, {list(FEATURES)}")
            with np.load(folder / _CORPUS, allow_pickle=False) as arrays:
                text, frequency = arrays["words"].tobytes().decode(), arrays["frequency"]
            if frequency.ndim != 1 or frequency.dtype != np.int64 or frequency.min(initial=1) < 1:
                raise ValueError(f"frequencies are {frequency.dtype} of shape {frequency.shape}")
            words = text.split("\n") if len(frequency) else []
            if len(words) != len(frequency):
                raise ValueError(f"{len(words)} words with {len(frequency)} frequencies")
            corpus = CorpusStatistics(
                int(description["documents"]),
                float(description["average_length"]),
                dict(zip(words, frequency.tolist(), strict=True)),
            )
            weights = np.array(description["weights"], np.float64)
            scaling = Scaling(float(description["temperature"]), float(description["bias"]))
            if weights.shape != (len(FEATURES) + 1,) or not np.isfinite(weights).all():
                raise ValueError(f"{weights.size} weights for {len(FEATURES)} features, or not finite ones")
            max_frequency = max(corpus.frequency.values(), default=0)
            if not (
                0 < scaling.temperature < np.inf
                and np.isfinite(scaling.bias)
                and max_frequency <= corpus.documents
                and 0 <= corpus.average_length < np.inf
            ):
                raise ValueError(
                    f"temperature {scaling.temperature}, bias {scaling.bias}, "
                    f"{corpus.documents} documents of {corpus.average_length} words"
                )
            report = typed(folder / DESCRIPTION, "report", description["report"], dict, remedy="fit it again")
            return cls(corpus=corpus, weights=weights, scaling=scaling, report=report)
        except InputError:
            raise
        except Exception as error:  # NumPy's reader of archives raises many types of errors
            raise InputError(f"{folder}: not a readable discriminator ({error}); fit it again") from error


def _features(queries: Sequence[str], documents: Sequence[str], corpus: CorpusStatistics) -> np.ndarray:
    query_texts, query_index = distinct(queries)
    document_texts, document_index = distinct(documents)
    return pair_features(query_texts, document_texts, query_index, document_index, corpus=corpus)
