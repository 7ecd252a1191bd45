"""The sentences above the figures of a comparison: what a reader should know before reading them."""

from collections.abc import Mapping
from typing import Any

from launch.comparison.presentation.claims import FEWEST_SEEDS
from launch.comparison.results.table import Comparison


def notes_of(
    comparison: Comparison,
    arguments: Mapping[str, Any],
    *,
    tuning: Mapping[str, Mapping[float, float]],
    left_out: Mapping[str, str],
    failures: Mapping[str, str],
) -> list[str]:
    """Returns the notes of a page.

    Args:
      comparison: the finished part of the comparison.
      arguments: the arguments that the cells share.
      tuning: see `tuning_notes`.
      left_out: the systems that the logs do not allow, with the reasons.
      failures: the cells that failed in this call, with the reasons.
    """
    notes = []
    if not arguments.get("logs"):
        notes.append("The logs are those of a simulated world: the figures compare mechanisms, not products.")
    if arguments.get("fast"):
        notes.append(
            f"This is the fast form, with {arguments['steps']} steps in a small world. Its figures mean little."
        )
    seeds = [len(one.results) for one in comparison.trained if one.architecture != "none"]
    if min(seeds, default=FEWEST_SEEDS) < FEWEST_SEEDS:
        notes.append(f"Some systems have fewer than {FEWEST_SEEDS} seeds, so their verdicts are provisional.")
    finished = {one.system for one in comparison.trained}
    if missing := [name for name in comparison.catalogue.systems if name not in finished]:
        notes.append(f"The table is not complete: {', '.join(missing)} have no finished cell.")
    notes += [f"{name} is left out ({why})." for name, why in left_out.items()]
    notes += [f"Cell {name} failed ({why})." for name, why in failures.items()]
    notes += tuning_notes(tuning)
    if not comparison.differences:
        notes.append(f"No differences are shown, because the reference {comparison.reference} has no finished cell.")
    if arguments.get("discriminator") == "lexical" and not arguments.get("real"):
        notes.append("The relevance discriminator is lexical. It favours documents that share words with the query.")
        if arguments.get("logs"):
            notes.append("It also decides which documents belong to the QR test, so QR is kind to BM25.")
    if "distilled" in finished and arguments.get("logs"):
        notes.append(
            "The system distilled learns the scores of the discriminator that also decides which documents belong to "
            "the QR test, so its QR figures are circular; judge it by CT and NDCG."
        )
    return notes


def tuning_notes(tuning: Mapping[str, Mapping[float, float]]) -> list[str]:
    """Returns sentences on learning rates that the dev split did not choose, or chose at an end of the grid.

    Args:
      tuning: a system with its architecture -> learning rate factor -> dev recall.
    """
    found: dict[str, list[str]] = {}
    for pair, recalls in tuning.items():
        best = {factor for factor, recall in recalls.items() if recall == max(recalls.values())}
        if len(recalls) < 2:
            continue
        if len(best) == len(recalls):
            found.setdefault("same", []).append(pair)
        elif min(best) == max(recalls):
            found.setdefault("largest", []).append(pair)
        elif max(best) == min(recalls):
            found.setdefault("smallest", []).append(pair)
    sentences = {
        "same": "The dev recall was the same at every learning rate of the grid for {}, so tuning decided nothing.",
        "largest": "The largest learning rate of the grid was the best on dev for {}; a larger one may be better.",
        "smallest": "The smallest learning rate of the grid was the best on dev for {}; a smaller one may be better.",
    }
    return [sentence.format(", ".join(found[end])) for end, sentence in sentences.items() if end in found]
