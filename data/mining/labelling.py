"""The last part of mining: evidence and theta's scores to the label table and alpha_sweep.json.

From what users support to rows: supporters are counted, and what too few users support is left out, for privacy.

With a threshold of K users:

- A perspective keeps a (query, document) pair when at least K distinct users support it there, over all the queries
  that they rephrased to. Each perspective counts for itself.
- Of a kept pair, the evidence through one via_query, which is a text that users typed, stays when K users went through
  it. The rest of its evidence becomes one entry without via_query if K users stand behind it, else it is left out.
- A query that fewer than K distinct users typed gives no rows at all: neither negatives nor written documents. Its text
  alone may tell who typed it. (Judgements come from the user of this program, not from users of the search, and stay.)
- Negatives of the other queries stay whoever was shown them, since what was shown, ranked or filtered out is the
  engine's doing; how many users saw it is told from K on. A pair that some user supported and that was left out for
  want of supporters is no negative: it is known to be doubtful.

Nothing is left out with K = 1.
"""

import json
from pathlib import Path
from typing import Any

import ibis

from crops_jax.artifacts import write_text
from crops_jax.errors import InputError
from data.backends.connection import Connection
from data.labels.assign_levels import assign_levels, parse_levels
from data.labels.files import write_labels
from data.mining.evidence import Evidence, count, sweep_alpha
from data.mining.parameters import MiningParameters
from data.perspectives import knowledge_level, query_level, search_log, system_level
from data.perspectives.rows import as_rows, count_supporters

_PAIR = ["query", "doc_id"]
_LEVELS = search_log.LEVELS | query_level.LEVELS | system_level.LEVELS


def write_evidence_labels(
    connection: Connection,
    evidence: Evidence,
    scores: ibis.Table | None,
    out: Path,
    *,
    parameters: MiningParameters,
    partitions: int | None,
    written: ibis.Table | None = None,
    judged: ibis.Table | None = None,
    may_be_empty: bool = False,
) -> dict[str, Any]:
    """Writes the label table and, where theta decided on anything, the sweep of alpha; returns their counts.

    Args:
      connection: an Ibis backend on which all of the tables are.
      evidence: of the log.
      scores: query, doc_id, score of every candidate pair; None where no perspective has candidates.
      out: the directory to write into.
      parameters: of mining; alpha, levels and min_supporters count here.
      partitions: see `data.labels.files.write_labels`.
      written: the table knowledge_documents, where its perspective is wanted.
      judged: rows of judgements.
      may_be_empty: writes a table without rows too.

    Raises:
      InputError: there is nothing to write.
    """
    least = parameters.min_supporters
    rows, left_out = supported_rows(evidence, scores, alpha=parameters.alpha, min_supporters=least)
    outcome: dict[str, Any] = {}
    if scores is not None:
        sweep, outcome = sweep_alpha(evidence, scores, alpha=parameters.alpha)
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
    labels = assign_levels(ibis.union(*rows) if len(rows) > 1 else rows[0], levels=parse_levels(parameters.levels))
    labels = labels.cache()
    if not may_be_empty and not count(labels):
        few = f" that {least} users support (--min-supporters)" if least > 1 else ""
        raise InputError(f"nothing was mined: the rows of the logs give neither positives nor negatives{few}")
    write_labels(connection, labels, out, partitions=partitions)
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


def supported_rows(
    evidence: Evidence, scores: ibis.Table | None, *, alpha: float, min_supporters: int
) -> tuple[list[ibis.Table], dict[str, int]]:
    """Rows (data.perspectives.rows.SCHEMA) of all evidence that passes theta and has enough supporters.

    Args:
      evidence: of any perspectives.
      scores: query, doc_id, score of every candidate pair; None where there are none.
      alpha: a candidate passes when its score is greater.
      min_supporters: K.

    Returns:
      The rows, one table or more, and for K > 1 what was left out: the pairs of each perspective, the entries of
      evidence through a single via_query, the negative rows.
    """
    rows, left_out = [], []
    counts: dict[str, int] = {}
    for name, supports in evidence.candidates.items():
        assert scores is not None
        passing = supports.semi_join(scores.filter(scores.score > alpha), _PAIR)
        counted = count_supporters(passing)
        if min_supporters > 1:
            counted, few, entries = _with_enough(passing, counted, min_supporters)
            left_out.append(few)
            counts[name] = count(few)
            if name == query_level.SOURCE:
                counts["query_level_evidence"] = entries
        rows.append(counted.join(scores, _PAIR))
    if search_log.SOURCE in evidence.supports:
        counted = count_supporters(_told(evidence))
        if min_supporters > 1:
            counted, log_counts = _log_with_enough(evidence, counted.cache(), left_out, min_supporters)
            counts |= log_counts
        rows.append(counted)
    return [as_rows(table, level=_level(table)) for table in rows], counts


def queries_of_enough(searches: ibis.Table, min_supporters: int) -> ibis.Table:
    """The column query: those that at least `min_supporters` distinct users typed. searches: user_id, query."""
    users = searches.group_by("query").agg(users=searches.user_id.nunique())
    return users.filter(users.users >= min_supporters).select("query")


def _with_enough(supports: ibis.Table, counted: ibis.Table, least: int) -> tuple[ibis.Table, ibis.Table, int]:
    """Counted supports of the pairs with enough supporters, the pairs with too few, and how many entries were merged.

    Supporters of a pair are counted over all its via_query; a user who took two ways is one.
    """
    pairs = supports.group_by(_PAIR).agg(users=supports.user_id.nunique()).cache()
    enough = counted.semi_join(pairs.filter(pairs.users >= least), _PAIR).cache()
    alone = enough.filter(enough.supporters >= least)
    scarce = enough.filter(enough.supporters < least).select(*_PAIR, "via_query").cache()
    if not count(scarce):
        return alone, pairs.filter(pairs.users < least).cache(), 0
    merged = count_supporters(supports.semi_join(scarce, [*_PAIR, "via_query"]).mutate(via_query=ibis.null("string")))
    merged = merged.filter(merged.supporters >= least).select(*alone.columns)
    return ibis.union(alone, merged), pairs.filter(pairs.users < least).cache(), count(scarce)


def _log_with_enough(
    evidence: Evidence, counted: ibis.Table, left_out: list[ibis.Table], least: int
) -> tuple[ibis.Table, dict[str, int]]:
    assert evidence.searches is not None
    positive = counted.source == search_log.SOURCE
    enough = counted.filter(positive & (counted.supporters >= least))
    few = counted.filter(positive & (counted.supporters < least))
    doubtful = [table.select(*_PAIR) for table in (few, *left_out)]
    negatives = counted.filter(~positive)
    kept = negatives.semi_join(queries_of_enough(evidence.searches, least), "query")
    kept = kept.anti_join(ibis.union(*doubtful) if len(doubtful) > 1 else doubtful[0], _PAIR)
    told = ibis.ifelse(kept.supporters >= least, kept.supporters, ibis.null("int64"))
    kept = kept.mutate(supporters=told).cache()
    counts = {search_log.SOURCE: count(few), "negatives": count(negatives) - count(kept)}
    return ibis.union(enough, kept.select(*enough.columns)), counts


def _told(evidence: Evidence) -> ibis.Table:
    """The log's supports, without what users passed over where the log does not tell it."""
    supports = evidence.supports[search_log.SOURCE]
    return supports if evidence.recorded else supports.filter(supports.source != search_log.SHOWN_NOT_CLICKED)


def _level(rows: ibis.Table) -> ibis.Value:
    return ibis.cases(*((rows.source == source, int(level)) for source, level in _LEVELS.items()))
