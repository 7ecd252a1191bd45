"""The last part of mining: evidence and theta's scores to the label table and alpha_sweep.json."""

import json
from pathlib import Path
from typing import Any

import ibis

from crops_jax.artifacts import write_text
from crops_jax.errors import InputError
from data.evidence import Evidence, count, sweep_alpha
from data.labels.assign_levels import assign_levels, parse_levels
from data.labels.files import write_labels
from data.perspectives import knowledge_level
from data.supported_rows import queries_of_enough, supported_rows


def write_evidence_labels(
    arguments: Any,
    connection,
    evidence: Evidence,
    scores: ibis.Table | None,
    out: Path,
    *,
    written: ibis.Table | None = None,
    judged: ibis.Table | None = None,
    may_be_empty: bool = False,
) -> dict[str, Any]:
    """Writes the label table and, where theta decided on anything, the sweep of alpha; returns their counts.

    Args:
      arguments: alpha, levels, min_supporters and partitions, as in data.mine.MineArguments.
      connection: an Ibis backend on which all of the tables are.
      evidence: of the log.
      scores: query, doc_id, score of every candidate pair; None where no perspective has candidates.
      out: the directory to write into.
      written: the table knowledge_documents, where its perspective is wanted.
      judged: rows of judgements.
      may_be_empty: writes a table without rows too.

    Raises:
      InputError: there is nothing to write.
    """
    least = arguments.min_supporters
    rows, left_out = supported_rows(evidence, scores, alpha=arguments.alpha, min_supporters=least)
    outcome: dict[str, Any] = {}
    if scores is not None:
        sweep, outcome = sweep_alpha(evidence, scores, alpha=arguments.alpha)
        write_text(out / "alpha_sweep.json", json.dumps(sweep, indent=2) + "\n")
    if written is not None:
        every = knowledge_level.positives(written)
        kept = every
        if least > 1 and evidence.searches is not None:
            kept = every.semi_join(queries_of_enough(evidence.searches, least), "query")
            left_out[knowledge_level.SOURCE] = count(every) - count(kept)
        rows.append(kept)
    if judged is not None:
        rows.append(judged)
    if least > 1 and evidence.searches is not None:
        typed = evidence.searches.select("query").distinct()
        left_out["queries"] = count(typed) - count(queries_of_enough(evidence.searches, least))
    labels = assign_levels(ibis.union(*rows) if len(rows) > 1 else rows[0], levels=parse_levels(arguments.levels))
    labels = labels.cache()
    if not may_be_empty and not count(labels):
        few = f" that {least} users support (--min-supporters)" if least > 1 else ""
        raise InputError(f"nothing was mined: the rows of the logs give neither positives nor negatives{few}")
    write_labels(connection, labels, out, partitions=arguments.partitions)
    return {**_counts(labels), **outcome, "support": {"min_supporters": least, "left_out": left_out}}


def _counts(labels: ibis.Table) -> dict[str, Any]:
    by = labels.group_by("source", "level").agg(rows=labels.count()).order_by("source", "level").to_pyarrow()
    by_source: dict[str, int] = {}
    by_level: dict[str, int] = {}
    for row in by.to_pylist():
        by_source[row["source"]] = by_source.get(row["source"], 0) + row["rows"]
        by_level[str(row["level"])] = by_level.get(str(row["level"]), 0) + row["rows"]
    return {
        "rows": sum(by_source.values()),
        "queries": int(labels.query.nunique().to_pyarrow().as_py()),
        "by_source": by_source,
        "by_level": dict(sorted(by_level.items())),
    }
