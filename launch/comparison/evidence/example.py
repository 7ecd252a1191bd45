"""One test query whose results widen: CroPS retrieves relevant documents for it that FS-LR does not.

RESULTS/example.json  the query with both lists; it may be committed, so that the page can be made again from it

The query is chosen by a rule, not by hand. It shows what a gain looks like, and says nothing about how large gains are.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crops_jax.artifacts import write_text
from crops_jax.artifacts.json_fields import read_object, typed
from launch.comparison.evidence.lists import DEPTH, TESTS, Lists, kept_lists, read_lists
from launch.comparison.results.files import Result

WIDER, NARROWER = "crops", "fs_lr"
ARCHITECTURE, SEED = "transformer", 0
RULE = (
    f"Among the test queries with at least 3 relevant documents, the one with the largest gain in Recall@{DEPTH} at "
    f"seed {SEED} is shown; of equal gains, the one with more relevant documents, and then the one whose SHA-256 is "
    "smallest."
)
_FEWEST_RELEVANT = 3
_FILE = "example.json"
_REMEDY = "remove the file"
_MOST_GAINED = 10


@dataclass(frozen=True, kw_only=True)
class Example:
    """A query with the first documents of both systems, and the relevant ones that only the wider one retrieves."""

    inputs: str
    """The fingerprint of the inputs of both cells."""
    test: str
    query: str
    relevant: int
    """The number of relevant documents of the query."""
    recall: Mapping[str, float]
    """System -> Recall@100."""
    first: Mapping[str, Sequence[Mapping[str, Any]]]
    """System -> its first documents, each with "title" and "relevant"."""
    gained: Sequence[Mapping[str, Any]]
    """The relevant documents among the first 100 of the wider system and not of the other, best ones first: "title",
    "rank", and "other_rank" (None beyond the depth of the search). At most 10 of them."""
    gained_in_all: int


def is_shown(system: str, architecture: str, seed: int) -> bool:
    """Returns whether an example needs the lists of this cell."""
    return system in (WIDER, NARROWER) and (architecture, seed) == (ARCHITECTURE, SEED)


def choose_example(wider: Lists, narrower: Lists, *, test: str, inputs: str) -> Example | None:
    """Returns the query that RULE chooses; None if no query with enough relevant documents gains."""

    def gain(query: str) -> tuple[float, int, str]:
        digest = hashlib.sha256(query.encode()).hexdigest()
        return narrower.recall[query] - wider.recall[query], -len(wider.relevant[query]), digest

    queries = [query for query, found in wider.relevant.items() if len(found) >= _FEWEST_RELEVANT]
    queries = [query for query in queries if query in narrower.recall and query in wider.recall]
    chosen = min(queries, key=gain, default=None)
    if chosen is None or gain(chosen)[0] >= 0:
        return None
    other = {document["doc_id"]: document["rank"] for document in narrower.relevant[chosen]}
    gained = [
        {"title": document["title"], "rank": document["rank"], "other_rank": other[document["doc_id"]]}
        for document in sorted(wider.relevant[chosen], key=lambda document: document["rank"] or DEPTH + 1)
        if _is_within(document["rank"]) and not _is_within(other[document["doc_id"]])
    ]
    return Example(
        inputs=inputs,
        test=test,
        query=chosen,
        relevant=len(wider.relevant[chosen]),
        recall={WIDER: wider.recall[chosen], NARROWER: narrower.recall[chosen]},
        first={WIDER: wider.first.get(chosen, []), NARROWER: narrower.first.get(chosen, [])},
        gained=gained[:_MOST_GAINED],
        gained_in_all=len(gained),
    )


def update_example(results: Path, runs: Path, found: Sequence[Result]) -> None:
    """Writes RESULTS/example.json, if the lists of both cells were kept; otherwise it stays as it is.

    Args:
      results: the folder of the results.
      runs: the folder of the runs, which have the lists.
      found: the results of the comparison.
    """
    cells = _cells(found)
    kept = {system: kept_lists(runs, cell.name, cell.inputs) for system, cell in cells.items()}
    wider_folder, narrower_folder = kept.get(WIDER), kept.get(NARROWER)
    if wider_folder is None or narrower_folder is None:
        return
    for test in TESTS:
        wider, narrower = read_lists(wider_folder, test), read_lists(narrower_folder, test)
        if wider is None or narrower is None:
            continue
        example = choose_example(wider, narrower, test=test, inputs=_fingerprint(cells))
        if example is not None:
            write_text(results / _FILE, json.dumps(asdict(example), indent=1, ensure_ascii=False) + "\n")
        return


def read_example(results: Path, found: Sequence[Result]) -> Example | None:
    """Returns the example of these results; None without one, or if it was made from other cells."""
    file = results / _FILE
    if not file.exists():
        return None
    stored = read_object(file, remedy=_REMEDY)
    kinds = {"inputs": str, "test": str, "query": str, "relevant": int, "recall": dict, "first": dict, "gained": list}
    kinds["gained_in_all"] = int
    example = Example(
        **{name: typed(file, name, stored.get(name), kind, remedy=_REMEDY) for name, kind in kinds.items()}
    )
    return example if example.inputs == _fingerprint(_cells(found)) else None


def _cells(found: Sequence[Result]) -> dict[str, Result]:
    """Returns the results of the two cells that are finished, by system."""
    return {result.system: result for result in found if is_shown(result.system, result.architecture, result.seed)}


def _fingerprint(cells: Mapping[str, Result]) -> str:
    inputs = {system: cell.inputs for system, cell in cells.items()}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _is_within(rank: int | None) -> bool:
    return rank is not None and rank <= DEPTH
