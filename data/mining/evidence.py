"""What the events of a log say for and against documents, by perspective, before theta and anything else decides."""

import datetime
from collections.abc import Collection
from typing import Any, NamedTuple

import ibis

from crops_jax.discriminator import alpha_sweep
from crops_jax.discriminator.similarity import open_similarity
from data.backends.connection import Connection
from data.mining.parameters import MiningParameters, ReformulationParameters
from data.mining.scores import similarity_table
from data.perspectives import query_level, search_log, system_level
from data.perspectives.log_events import LogEvents

DECIDED_BY_THETA = (query_level.SOURCE, system_level.SOURCE)


class Evidence(NamedTuple):
    """Supports (data.perspectives.rows.SUPPORTS) by perspective, and who searched.

    searches: user_id, query; None where there is no log. recorded: whether the log tells what users passed over.
    """

    supports: dict[str, ibis.Table]
    searches: ibis.Table | None
    recorded: bool

    @property
    def candidates(self) -> dict[str, ibis.Table]:
        """Supports of the perspectives on whose pairs theta decides."""
        return {name: self.supports[name] for name in DECIDED_BY_THETA if name in self.supports}

    @property
    def candidate_pairs(self) -> ibis.Table | None:
        """query, doc_id of all candidates, not distinct; None where no perspective has any."""
        pairs = [table.select("query", "doc_id") for table in self.candidates.values()]
        return None if not pairs else ibis.union(*pairs) if len(pairs) > 1 else pairs[0]


def gather_evidence(
    connection: Connection,
    events: LogEvents,
    perspectives: Collection[str],
    *,
    parameters: MiningParameters,
    since: datetime.datetime | None = None,
) -> tuple[Evidence, dict[str, dict[str, int]]]:
    """The evidence of some perspectives, and how much there was on the way to it, by perspective.

    Args:
      connection: the log tables.
      events: the part of them to read.
      perspectives: those of search_log, query_level and system_level whose tables are there.
      parameters: those of the perspectives.
      since: leaves out evidence whose latest event was before it.
    """
    supports: dict[str, ibis.Table] = {}
    counts: dict[str, dict[str, int]] = {}
    recorded = False
    if search_log.SOURCE in perspectives:
        supports[search_log.SOURCE] = search_log.supports(events, since=since)
        recorded = search_log.behaviour_recorded(events, since=since)
    if query_level.SOURCE in perspectives:
        supports[query_level.SOURCE], counts[query_level.SOURCE] = reformulation_supports(
            connection, events, parameters=parameters, since=since
        )
    if system_level.SOURCE in perspectives:
        supports[system_level.SOURCE] = system_level.supports(
            events,
            feed_window_seconds=parameters.feed_window_seconds,
            max_feed_documents=parameters.max_feed_documents,
            only_long_watch=parameters.feed_long_watch_only,
            since=since,
        ).cache()
        counts[system_level.SOURCE] = {}
    searches = events.searches
    if searches is not None:
        searches = (searches if since is None else searches.filter(searches.time >= since)).select("user_id", "query")
    return Evidence(supports, searches, recorded), counts


def reformulation_supports(
    connection: Connection,
    events: LogEvents,
    *,
    parameters: ReformulationParameters,
    since: datetime.datetime | None = None,
) -> tuple[ibis.Table, dict[str, int]]:
    """P1's supports, and how many reformulations there were on the way.

    Args:
      connection, events, since: as in `gather_evidence`.
      parameters: the window of a reformulation, and what decides whether two queries are alike.
    """
    pairs = query_level.reformulations(
        events, window_seconds=parameters.window_seconds, only_unsatisfied=parameters.only_unsatisfied, since=since
    ).cache()
    similarity = similarity_table(connection, pairs, open_similarity(parameters.similarity_encoder))
    found = query_level.supports(events, pairs, similarity, beta=parameters.beta).cache()
    every = query_level.supports(events, pairs, similarity, beta=-2.0)
    counts = {
        "reformulations": count(pairs),
        "query_pairs": count(similarity),
        "similar_query_pairs": count(similarity.filter(similarity.similarity >= parameters.beta)),
        "candidates_of_any_similarity": count(every.select("query", "doc_id").distinct()),
    }
    return found, counts


def sweep_alpha(evidence: Evidence, scores: ibis.Table, *, alpha: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What alpha_sweep.json holds, and by perspective how many distinct pairs theta decided on and how many passed."""
    sweep: dict[str, Any] = {"alpha": alpha}
    counts = {}
    for name, table in evidence.candidates.items():
        scored = scores.semi_join(table, ["query", "doc_id"])
        sweep[name] = alpha_sweep(scored.score.to_pyarrow().to_numpy(zero_copy_only=False))
        counts[name] = {"candidates": count(scored), "passing": count(scored.filter(scored.score > alpha))}
    return sweep, counts


def count(table: ibis.Table) -> int:
    """The rows of a table."""
    return int(table.count().to_pyarrow().as_py())
