"""The evidence of a log for and against documents, by perspective, before any threshold is applied.

Theta is the relevance discriminator; alpha is the threshold that its probability must exceed.
"""

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
from data.perspectives.shared_ids import shared_ids, without_users

DECIDED_BY_THETA = (query_level.SOURCE, system_level.SOURCE)


class Evidence(NamedTuple):
    """The supports (data.perspectives.rows.SUPPORTS) by perspective, and the searches of users.

    searches: the table (user_id, query); None if the logs have no searches. recorded: whether the log records which
    shown documents users did not click.
    """

    supports: dict[str, ibis.Table]
    searches: ibis.Table | None
    recorded: bool

    @property
    def candidates(self) -> dict[str, ibis.Table]:
        """The supports of the perspectives whose pairs theta scores."""
        return {name: self.supports[name] for name in DECIDED_BY_THETA if name in self.supports}

    @property
    def candidate_pairs(self) -> ibis.Table | None:
        """The table (query, doc_id) of all candidates, not distinct; None if no perspective has candidates."""
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
    """Returns the evidence of some perspectives, and counts of the intermediate steps by perspective.

    Args:
      connection: the log tables.
      events: the part of the log tables to read.
      perspectives: some of search_log, query_level and system_level; their tables must be present.
      parameters: the parameters of the perspectives.
      since: evidence whose latest event was before this time is left out; None keeps all.
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
        personal, counts[system_level.SOURCE] = _personal(events, parameters)
        supports[system_level.SOURCE] = system_level.supports(
            personal,
            feed_window_seconds=parameters.feed_window_seconds,
            max_feed_documents=parameters.max_feed_documents,
            only_long_watch=parameters.feed_long_watch_only,
            since=since,
        ).cache()
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
    """Returns the supports of the query level (P1), and the counts of reformulations and query pairs.

    Args:
      connection, events, since: as in `gather_evidence`.
      parameters: the window and the limits of a reformulation, the similarity encoder, and beta, the minimum
        similarity of two queries.
    """
    events, set_aside = _personal(events, parameters)
    limits = {
        "window_seconds": parameters.window_seconds,
        "max_later_searches": parameters.max_later_searches,
        "only_unsatisfied": parameters.only_unsatisfied,
        "since": since,
    }
    pairs = query_level.reformulations(events, **limits).cache()
    similarity = similarity_table(connection, pairs, open_similarity(parameters.similarity_encoder))
    found = query_level.supports(events, pairs, similarity, beta=parameters.beta).cache()
    every = query_level.supports(events, pairs, similarity, beta=-2.0)
    counts = {
        **set_aside,
        "reformulations": count(pairs),
        **_beyond_limit(query_level.left_out(events, **limits)),
        "query_pairs": count(similarity),
        "similar_query_pairs": count(similarity.filter(similarity.similarity >= parameters.beta)),
        "candidates_of_any_similarity": count(every.select("query", "doc_id").distinct()),
    }
    return found, counts


def _personal(events: LogEvents, parameters: ReformulationParameters) -> tuple[LogEvents, dict[str, int]]:
    """Returns the events without those of ids that people share, and the counts of these ids and their searches."""
    if parameters.max_searches_per_hour is None:
        return events, {}
    users = shared_ids(events, max_searches_per_hour=parameters.max_searches_per_hour).cache()
    searches = users.searches.sum().fill_null(0).to_pyarrow().as_py()
    return without_users(events, users), {"users_set_aside": count(users), "searches_set_aside": int(searches)}


def _beyond_limit(left_out: ibis.Table) -> dict[str, int]:
    """Returns the counts of later searches beyond the limit, and of the users that have them; empty without any."""
    row = left_out.agg(searches=left_out.left_out.sum(), users=left_out.user_id.nunique()).to_pyarrow().to_pylist()[0]
    if not row["users"]:
        return {}
    return {"later_searches_left_out": int(row["searches"]), "users_with_searches_left_out": row["users"]}


def sweep_alpha(evidence: Evidence, scores: ibis.Table, *, alpha: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the content of alpha_sweep.json, and by perspective the numbers of scored and of passing pairs."""
    sweep: dict[str, Any] = {"alpha": alpha}
    counts = {}
    for name, table in evidence.candidates.items():
        scored = scores.semi_join(table, ["query", "doc_id"])
        sweep[name] = alpha_sweep(scored.score.to_pyarrow().to_numpy(zero_copy_only=False))
        counts[name] = {"candidates": count(scored), "passing": count(scored.filter(scored.score > alpha))}
    return sweep, counts


def count(table: ibis.Table) -> int:
    """Returns the number of rows of a table."""
    return int(table.count().to_pyarrow().as_py())
