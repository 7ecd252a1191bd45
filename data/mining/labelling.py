"""The last part of mining. It turns evidence and the scores of the relevance discriminator (theta) into labels.

It writes the label table and alpha_sweep.json. Supporters of each pair are counted, and what too few users support is
left out for privacy.

With a threshold of K users:

- A perspective keeps a (query, document) pair if at least K distinct users support it there. Users are counted over
  all the reformulations (via_query) of the pair, and in each perspective separately.
- A via_query is a text that users typed. Of a kept pair, the evidence through one via_query stays if K users support
  it. The rest of the evidence becomes one entry without via_query if K users support it; otherwise it is left out.
- A query that fewer than K distinct users typed gets no rows: neither negatives nor written documents. Its text alone
  can identify who typed it. (Judgements stay: they come from the user of this program, not from users of the search.)
- Negatives of the other queries stay however few users saw them, because the engine decided what was shown, ranked or
  filtered out. The number of users who saw them is written only if it is at least K. A pair that was left out because
  it had too few supporters is not used as a negative: some user did support it.

With K = 1 nothing is left out.
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
    """Writes the label table and, if theta scored any candidates, the sweep of alpha; returns their counts.

    Args:
      connection: the Ibis backend that holds all of the tables.
      evidence: the evidence of the log.
      scores: query, doc_id, score of every candidate pair; None if no perspective has candidates.
      out: the directory to write into.
      parameters: the parameters of mining; alpha, levels and min_supporters are used here.
      partitions: see `data.labels.files.write_labels`.
      written: the table knowledge_documents; None if its perspective is not mined.
      judged: the rows of judgements; None without them.
      may_be_empty: whether a table without rows is written; otherwise it is an error.

    Raises:
      InputError: there are no rows to write.
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
        raise InputError(
            f"nothing was mined: the rows of the logs give neither positives nor negatives{few}; bring clicks or other "
            "perspectives, or judgements of split train with --judgements-as-labels"
        )
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
    """Returns the rows (data.perspectives.rows.SCHEMA) of all evidence that passes theta and has enough supporters.

    Args:
      evidence: the evidence of any perspectives.
      scores: query, doc_id, score of every candidate pair; None if there are no candidates.
      alpha: the threshold that the score of a candidate must exceed.
      min_supporters: K, the minimum number of distinct users.

    Returns:
      One or more tables of rows and, for K > 1, counts of what was left out: pairs of each perspective, entries of
      evidence through one via_query, and negative rows.
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
    """Returns a table (query) of the queries that at least `min_supporters` distinct users typed.

    searches: the table (user_id, query).
    """
    users = searches.group_by("query").agg(users=searches.user_id.nunique())
    return users.filter(users.users >= min_supporters).select("query")


def _with_enough(supports: ibis.Table, counted: ibis.Table, least: int) -> tuple[ibis.Table, ibis.Table, int]:
    """Returns the supports of pairs with enough supporters, the pairs with too few, and the number of merged entries.

    Supporters of a pair are counted over all its via_query; a user with two of them counts once.
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
    shown_supporters = ibis.ifelse(kept.supporters >= least, kept.supporters, ibis.null("int64"))
    kept = kept.mutate(supporters=shown_supporters).cache()
    counts = {search_log.SOURCE: count(few), "negatives": count(negatives) - count(kept)}
    return ibis.union(enough, kept.select(*enough.columns)), counts


def _told(evidence: Evidence) -> ibis.Table:
    """Returns the supports of the search log; without shown_not_clicked if the log records no behaviour of users."""
    supports = evidence.supports[search_log.SOURCE]
    return supports if evidence.recorded else supports.filter(supports.source != search_log.SHOWN_NOT_CLICKED)


def _level(rows: ibis.Table) -> ibis.Value:
    return ibis.cases(*((rows.source == source, int(level)) for source, level in _LEVELS.items()))
