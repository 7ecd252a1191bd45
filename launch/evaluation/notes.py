"""The notes of metrics.json: what a reader of the figures has to know beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crops_jax.errors import InputError
from crops_jax.retrieval.ties import TiedFigure
from launch.evaluation.lineage import programs_of

if TYPE_CHECKING:
    from crops_jax.retrieval.scann_index import Index

_NOTED_RANGE = 0.01
"""The difference of the best and the worst order of equal scores from which a figure has a note."""
_NOTED_SHARES = 0.05
"""The difference of two systems' shares of judged documents from which the judgements have a note."""


def evaluation_notes(logs: str, index: "Index", trained: bool | None) -> list[str]:
    """One sentence a note.

    Args:
      logs: SPLIT, whose manifest says where it comes from.
      index: that which the encoder is served from.
      trained: whether the encoder was trained on SPLIT; None where no manifest says so.
    """
    notes = []
    if "data.simulate" in programs_of(logs):
        notes.append("The logs are those of a simulated world: the figures compare mechanisms, not products.")
    if _discriminator_kind(logs) == "lexical":
        notes.append(
            "Reformulation positives (QR) were chosen by the lexical discriminator, which favours documents that share "
            "words with the query, so QR is kind to BM25 and partly circular for mined positives."
        )
    if index.settings["kind"] == "exact":
        notes.append(index.settings["reason"] + ".")
    if trained is False:
        notes.append("The run was not trained on labels of this SPLIT; seen and unseen refer to the log of this SPLIT.")
    if trained is None:
        notes.append("No manifest says what the encoder was trained on; whether it saw the test period is not known.")
    return notes


def tie_notes(tied: Mapping[str, Mapping[str, Mapping[str, TiedFigure]]]) -> list[str]:
    """Returns a sentence for each system with figures that the order of equal scores moves by at least _NOTED_RANGE.

    Args:
      tied: system -> test -> metric -> the range of its figure.
    """
    notes = []
    for system, tests in tied.items():
        ranges = [
            f"{test} {metric} {figure.worst:.3f} to {figure.best:.3f}"
            for test, metrics in tests.items()
            for metric, figure in metrics.items()
            if figure.best - figure.worst >= _NOTED_RANGE
        ]
        if ranges:
            notes.append(
                f"Documents with equal scores are ranked by their ids, which decides figures of {system}. From the "
                f"worst to the best order, they are: {', '.join(ranges)}."
            )
    return notes


def judging_notes(systems: Mapping[str, Mapping[str, Mapping[str, Any]]], *, metric: str = "judged@4") -> list[str]:
    """Returns a sentence on the shares of judged documents, if those of two systems differ by _NOTED_SHARES or more.

    Args:
      systems: system -> test -> metric -> figure, as in metrics.json.
      metric: the share of the first documents that have a judgement.
    """
    shares = {name: tests["judgements"][metric]["value"] for name, tests in systems.items() if "judgements" in tests}
    known = {name: share for name, share in shares.items() if share is not None}
    if not known or max(known.values()) - min(known.values()) < _NOTED_SHARES:
        return []
    found = ", ".join(f"{name} {share:.1%}" for name, share in known.items())
    return [
        "Documents without a judgement count as not relevant in NDCG and Recall of the judged set. Of the first "
        f"{metric.partition('@')[2]} documents, these shares are judged: {found}. The higher the share of a system, "
        "the more these figures favour it."
    ]


def _discriminator_kind(logs: str) -> str | None:
    file = Path(logs) / "discriminator" / "discriminator.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("kind") if file.is_file() else None
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); hold out again") from error
