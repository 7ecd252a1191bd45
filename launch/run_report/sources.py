"""Reads the directories from which a report is made: evaluations, runs and label tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops_jax import artifacts
from crops_jax.errors import InputError, one_line
from crops_jax.labels import Level
from crops_jax.program.chain import COMMAND, STEPS, read_steps
from crops_jax.retrieval.evaluation import Value
from crops_jax.runs.log import read_goodput, read_metrics
from crops_jax.runs.status import run_status

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

KINDS = ("evaluation", "run", "labels")
# The fields that every metrics.json has.
_FIELDS = {"name", "logs_fingerprint", "documents", "bm25", "tests", "random", "systems", "subsets", "index", "notes"}
# Folder names of the steps of a pipeline. The content of such a folder is named after the parent folder.
_STEP_FOLDERS = {"labels", "run", "evaluation", "evaluate", "eval"}
_STEP_ORDER = {"labels": 0, "run": 1, "evaluation": 2}
_MINED_LATER = ("query_level", "system_level", "knowledge_level")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An EVAL, the output of launch.evaluate."""

    path: Path
    name: str
    metrics: dict[str, Any]
    manifest: Mapping[str, Any]

    @property
    def split(self) -> str:
        """The fingerprint of the evaluated log tables. Only evaluations with the same fingerprint can be compared."""
        return self.metrics["logs_fingerprint"]

    def values(self, system: str) -> list[Value]:
        """Returns the values of each query for `system`, "encoder" or "bm25"."""
        rows = _rows(self.path / "per_query.parquet", [("system", "==", system)])
        names = Value._fields
        return [Value(**{name: row[name] for name in names}) for row in rows]

    def retrieved(self) -> list[dict[str, Any]]:
        return _rows(self.path / "retrieved.parquet")

    def relevant(self) -> list[dict[str, Any]]:
        return _rows(self.path / "relevant.parquet")

    def titles(self, doc_ids: Iterable[str]) -> dict[str, str]:
        """Returns the titles of documents of the corpus, by id; nothing if the evaluation has no titles."""
        file = self.path / "index" / "documents.parquet"
        if not file.is_file() or "title" not in pq.read_schema(file).names:
            return {}
        return {row["doc_id"]: row["title"] for row in _rows(file, [("doc_id", "in", sorted(doc_ids))])}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A RUN of launch.train, finished or unfinished."""

    path: Path
    name: str
    lines: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    goodput: list[dict[str, Any]]
    """The lines of goodput.jsonl."""
    status: dict[str, Any]
    version: str
    """The version of crops_jax that made it."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A label table, LABELS."""

    path: Path
    name: str
    levels: dict[int, int]
    sources: dict[str, int]
    alpha_sweep: dict[str, Any] | None
    mined: dict[str, Any]
    fingerprint: str
    """The fingerprint of the content; equal tables have equal ones."""

    def cross_pairs(self, queries: Iterable[str]) -> dict[tuple[str, str], str]:
        """Returns the perspective of each labelled pair of these queries that is not from the search log."""
        table = _label_files(self.path).to_table(
            columns=["query", "doc_id", "source"],
            filter=pc.field("query").isin(sorted(set(queries))) & pc.field("source").isin(list(_MINED_LATER)),
        )
        return {(row["query"], row["doc_id"]): row["source"] for row in table.to_pylist()}


@dataclass(frozen=True, kw_only=True)
class Work:
    """A WORK of launch.pipeline."""

    path: Path
    command: str
    """The command line that made it; empty if it was not called by one."""
    seconds: dict[str, float]
    """The seconds of each step in their order, without those that an interruption lost."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The evaluations, runs and label tables of a report, and the work directories that hold them."""

    evaluations: list[Evaluation]
    runs: list[Run]
    labels: list[Labels]
    works: list[Work]
    manifests: dict[str, Path]
    """The directories of the sources, by names that do not contain their paths."""


def read_sources(paths: Sequence[str]) -> Sources:
    """Reads every directory; for a WORK of launch.pipeline, the label tables, runs and evaluations in it are read.

    Raises:
      InputError: a path is not the output of a program of this project, or has another kind; two evaluations of one
        SPLIT have the same name; there is nothing to report.
    """
    sources: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    manifests: dict[str, Path] = {}
    named = {Path(path): artifacts.read_manifest(path) for path in paths}
    works = [path for path, manifest in named.items() if manifest["kind"] == "work"]
    expanded: dict[Path, Mapping[str, Any]] = {}
    for path, manifest in named.items():
        expanded |= _expand(path, manifest)
    for path, manifest in expanded.items():
        kind = manifest["kind"]
        if kind not in KINDS:
            raise InputError(f"{path} holds {kind}; a report is made from {', '.join(KINDS)} or work directories")
        source = {"evaluation": _evaluation, "run": _run, "labels": _labels}[kind](path, manifest)
        sources[kind].append(source)
        manifests[_unused(f"{kind} {source.name}", manifests)] = path
    if not manifests:
        raise InputError("nothing to report: name runs, evaluations, label tables or a work directory")
    systems = [(evaluation.split, evaluation.name) for evaluation in sources["evaluation"]]
    for split, name in systems:
        if systems.count((split, name)) > 1 or name == "bm25":
            raise InputError(f"two systems are called {name}; evaluate one again with another --name")
    return Sources(
        evaluations=sources["evaluation"],
        runs=sources["run"],
        labels=sources["labels"],
        works=[_work(path) for path in works],
        manifests=manifests,
    )


def _expand(path: Path, manifest: Mapping[str, Any]) -> dict[Path, Mapping[str, Any]]:
    """Returns a path with its manifest; for a WORK, its sources in the order of its arms, and then those of no arm.

    The pairs on which a warm start is trained are documents of the catalogue, and no labels of an arm.
    """
    if manifest["kind"] != "work":
        return {path: manifest}
    arms = [arm.strip() for arm in manifest["arguments"].get("arms", "").split(",")]
    inside = sorted(
        (found.parent for found in path.glob(f"*/*/{artifacts.MANIFEST}")),
        key=lambda folder: (_place(folder.parent.name, arms), folder.parent.name, _STEP_ORDER.get(folder.name, 0)),
    )
    manifests = {folder: artifacts.read_manifest(folder) for folder in inside}
    return {
        folder: found
        for folder, found in manifests.items()
        if found["kind"] in KINDS
        and (found["kind"] != "labels" or folder.parent.name in arms or not arms[0])
        and (found["kind"] != "run" or not _is_left_over(folder, found, manifests))
    }


def _is_left_over(run: Path, manifest: Mapping[str, Any], manifests: Mapping[Path, Mapping[str, Any]]) -> bool:
    """Returns whether the arm of a run was evaluated with another run, that of an arm whose labels became equal."""
    evaluated = manifests.get(run.parent / "evaluation", {}).get("inputs", {}).get("run")
    return evaluated is not None and evaluated["fingerprint"] != manifest["fingerprint"]


def _place(name: str, arms: Sequence[str]) -> int:
    return arms.index(name) if name in arms else len(arms)


def _work(path: Path) -> Work:
    seconds = {name: entry["seconds"] for name, entry in read_steps(path / STEPS).items() if "seconds" in entry}
    command = path / COMMAND
    written = command.read_text(encoding="utf-8", errors="replace").strip() if command.is_file() else ""
    return Work(path=path, command=written, seconds=seconds)


def _evaluation(path: Path, manifest: Mapping[str, Any]) -> Evaluation:
    metrics = _json(path / "metrics.json")
    missing = _FIELDS - set(metrics)
    if missing:
        raise InputError(f"{path / 'metrics.json'}: field {min(missing)} is missing; evaluate again")
    return Evaluation(path=path, name=metrics["name"], metrics=metrics, manifest=manifest)


def _run(path: Path, manifest: Mapping[str, Any]) -> Run:
    return Run(
        path=path,
        name=_name(path),
        lines=read_metrics(path),
        goodput=read_goodput(path),
        status=run_status(path),
        version=manifest["version"],
    )


def _labels(path: Path, manifest: Mapping[str, Any]) -> Labels:
    try:
        table = _label_files(path).to_table(columns=["level", "source"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path}: the label table cannot be read ({error}); mine it again") from error
    levels = {row["values"]: row["counts"] for row in pc.value_counts(table["level"]).to_pylist()}
    sources = {row["values"]: row["counts"] for row in pc.value_counts(table["source"]).to_pylist()}
    sweep = path / "alpha_sweep.json"
    return Labels(
        path=path,
        name=_name(path),
        levels={int(level): levels.get(int(level), 0) for level in Level},
        sources=dict(sorted(sources.items(), key=lambda item: (-item[1], item[0]))),
        alpha_sweep=_json(sweep) if sweep.is_file() else None,
        mined=manifest.get("mined", {}),
        fingerprint=manifest["fingerprint"],
    )


def _label_files(path: Path) -> "Dataset":
    import pyarrow.dataset  # here, because it loads pandas

    single = path / "labels.parquet"
    return pyarrow.dataset.dataset(single if single.exists() else path / "labels", format="parquet")


def _name(path: Path) -> str:
    resolved = path.resolve()
    return resolved.parent.name if resolved.name in _STEP_FOLDERS else resolved.name


def _unused(name: str, taken: Iterable[str]) -> str:
    names, number = set(taken), 2
    while (candidate := name if name not in names else f"{name} {number}") in names:
        number += 1
    return candidate


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error}); write its directory again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a JSON object, found {type(content).__name__}; write its directory again")
    return content


def _rows(file: Path, filters: list | None = None) -> list[dict[str, Any]]:
    try:
        return pq.read_table(file, filters=filters).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: cannot be read ({one_line(error)}); evaluate again") from error
