"""How far the sources of positives are right: the share of arbitrary pairs that pass theta, and precision by judges.

Theta is the relevance discriminator; alpha is the threshold that its probability must exceed.
"""

import dataclasses
import datetime
from typing import Any, NamedTuple

import ibis
import numpy as np
import pyarrow as pa
from jaxtyping import Float

from crops_jax.discriminator import Discriminator
from crops_jax.errors import InputError
from crops_jax.program.progress import say
from crops_jax.retrieval.intervals import bootstrap_ratio
from data.backends.connection import Connection
from data.mining.evidence import DECIDED_BY_THETA, Evidence, count
from data.mining.parameters import MiningParameters
from data.mining.relevance.background_pairs import draw_pairs, random_documents
from data.mining.relevance.theta import Theta
from data.mining.relevance.training_pairs import (
    JUDGEMENTS,
    declared_relevant_grade,
    judged_by_group,
    lowest_relevant_grade,
    published_before,
    train_judgements,
)
from data.mining.scores import theta_table
from data.perspectives.log_events import read_events
from data.tables import LogTables

RANDOM_PAIRS = 5000
"""The number of random pairs that are scored: the standard error of a share of 2 % is 0.2 %."""

MAX_RANDOM_PASSING = 0.02
"""The share of random pairs above alpha from which on a warning is printed."""

MIN_JUDGED_PASSING = 20
"""The minimum number of judged candidates above a threshold that is chosen by its precision."""

_PAIR = ["query", "doc_id"]


class Judges(NamedTuple):
    """The judgements by which sources are measured: the table (query, doc_id, relevant).

    name: the judgements that they are, in words.
    """

    table: ibis.Table
    name: str
    relevant_grade: float


def measure_relevance(
    connection: Connection,
    logs: LogTables,
    evidence: Evidence,
    theta: Theta | None,
    scores: ibis.Table | None,
    *,
    parameters: MiningParameters,
    until: datetime.datetime | None = None,
) -> tuple[MiningParameters, dict[str, Any], dict[str, Any]]:
    """Returns the parameters with the alpha that is used, and the figures by which its decisions can be trusted.

    Args:
      connection, logs: the log tables.
      evidence: the evidence of all perspectives.
      theta: the discriminator; None if no perspective has candidates.
      scores: query, doc_id, score of every candidate pair; None if there are none.
      parameters: alpha or alpha_precision, relevant_grade and seed are used here.
      until: documents published at this time or later are not drawn as random ones.

    Returns:
      The parameters; the fields alpha and random_pairs_passing, which describe theta (empty without scores); and the
      field precision (only with judgements): judged_by, relevant_grade, and sources as `precision_by_source` returns
      them.

    Raises:
      InputError: alpha_precision cannot be reached.
    """
    about_theta: dict[str, Any] = {}
    precision: dict[str, Any] = {}
    if scores is None:
        theta = None
    every = [table.select("query") for table in evidence.supports.values()]
    queries = None if not every else (ibis.union(*every) if len(every) > 1 else every[0]).distinct().cache()
    judged = None
    if queries is not None:
        fitted_on = None if theta is None else theta.fitted["source"]
        judged = judges(connection, logs, queries, relevant_grade=parameters.relevant_grade, fitted_on=fitted_on)
    if parameters.alpha_precision is not None:
        if scores is None:
            raise InputError("--alpha-precision: there are no candidates that theta decides on; leave it out")
        alpha = choose_alpha(evidence, scores, judged, precision=parameters.alpha_precision)
        parameters = dataclasses.replace(parameters, alpha=alpha)
    if theta is not None:
        searched = queries if evidence.searches is None else evidence.searches
        assert searched is not None
        random = random_pair_scores(connection, searched, theta.discriminator, until=until, seed=parameters.seed)
        if parameters.alpha_precision is not None:
            parameters = dataclasses.replace(parameters, alpha=max(parameters.alpha, random_pairs_limit(random)))
        about_theta["alpha"] = parameters.alpha
        about_theta["random_pairs_passing"] = share_passing(random, alpha=parameters.alpha)
        warn_of_random_pairs(about_theta["random_pairs_passing"], alpha=parameters.alpha)
    if judged is not None:
        precision["precision"] = {
            "judged_by": judged.name,
            "relevant_grade": judged.relevant_grade,
            "sources": precision_by_source(evidence, scores, judged, alpha=parameters.alpha),
        }
    return parameters, about_theta, precision


def warn_of_random_pairs(passing: float | None, *, alpha: float) -> None:
    """Prints a warning if more than MAX_RANDOM_PASSING of random pairs exceed alpha; passing is None if not known."""
    if passing is not None and passing > MAX_RANDOM_PASSING:
        say(
            f"warning: theta passes {passing:.1%} of random query-document pairs at alpha {alpha:g}, more than "
            f"{MAX_RANDOM_PASSING:.0%}; many of the positives that it decides are then irrelevant. Raise --alpha, give "
            "--alpha-precision, or train a better discriminator"
        )


def random_pair_scores(
    connection: Connection,
    queries: ibis.Table,
    discriminator: Discriminator,
    *,
    until: datetime.datetime | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "pairs"]:
    """Returns theta of random pairs of a searched query and a document; empty without queries or documents.

    Args:
      connection: the log tables.
      queries: a table with the column query.
      discriminator: theta.
      until: documents published at this time or later are not drawn.
      seed: the seed of the draw of RANDOM_PAIRS pairs. Some of them are relevant by accident: about as many as the
        share of the catalogue that answers a query.
    """
    texts = sorted(queries.select("query").distinct().to_pyarrow()["query"].to_pylist())
    documents = random_documents(published_before(connection, until))
    rng = np.random.default_rng(seed)
    pairs = draw_pairs(texts, documents, set(), number=min(RANDOM_PAIRS, len(texts) * len(documents)), rng=rng)
    if not pairs:
        return np.empty(0)
    columns = {name: pa.array(values, pa.string()) for name, values in zip(_PAIR, zip(*pairs, strict=True))}
    table = connection.create_table(ibis.util.gen_name("random_pairs"), pa.table(columns), temp=True)
    return theta_table(connection, table, discriminator).score.to_pyarrow().to_numpy(zero_copy_only=False)


def share_passing(scores: Float[np.ndarray, "pairs"], *, alpha: float) -> float | None:
    """Returns the share of the scores above alpha; None without scores."""
    return round(float((scores > alpha).mean()), 6) if len(scores) else None


def random_pairs_limit(scores: Float[np.ndarray, "pairs"]) -> float:
    """Returns the smallest score above which at most MAX_RANDOM_PASSING of the scores lie; 0 without scores.

    Judgements are often of documents that a system ranked high, so the judged candidates can all be relevant where most
    others are not. An alpha that was chosen by their precision alone could pass nearly every pair.
    """
    if not len(scores):
        return 0.0
    passing = int(MAX_RANDOM_PASSING * len(scores))
    return float(np.sort(scores)[::-1][passing]) if passing < len(scores) else 0.0


def judges(
    connection: Connection,
    logs: LogTables,
    queries: ibis.Table,
    *,
    relevant_grade: float | None,
    fitted_on: str | None,
) -> Judges | None:
    """Returns the judgements by which the sources of positives can be measured; None if there are none.

    Judgements of split dev are taken, since no discriminator was fitted on them. Those of split train are taken with
    them if theta was not fitted on judgements, and alone if there are none of split dev; then the name says so.
    Judgements of split test are never read. Where the source declares that judges decided for a group of queries, such
    as the topic of a session, a judgement counts for every query of the group.

    Args:
      connection, logs: the log tables.
      queries: a table with the column query: the queries that have candidates.
      relevant_grade: the minimum grade of a relevant document; None for that which the source declares or, without
        one, the lowest grade above 0.
      fitted_on: the source of the pairs on which theta was fitted; None without theta.
    """
    if "judgements" not in logs.names:
        return None
    judged = connection.table("judgements")
    train, dev = train_judgements(connection), judged.filter((judged.split == "dev").fill_null(False))
    least = declared_relevant_grade(logs.path) if relevant_grade is None else relevant_grade
    if least is None:
        least = lowest_relevant_grade(ibis.union(train, dev))
    if least is None:
        return None
    parts, name = (dev,), "judgements of split dev"
    if fitted_on != JUDGEMENTS:
        parts, name = (dev, train), "judgements of split dev and train"
    elif not count(dev.semi_join(queries, "query").limit(1)):
        parts, name = (
            (train,),
            "judgements of split train, on which theta was fitted: precision after theta is too high",
        )
    table = ibis.union(*parts) if len(parts) > 1 else parts[0]
    if judged_by_group(logs.path) and "searches" in logs.names:
        table = _of_whole_groups(connection, table)
        name = name.replace("judgements of", "judgements for all queries of a group, of", 1)
    table = table.semi_join(queries, "query").select("query", "doc_id", relevant=table.grade >= least).cache()
    return Judges(table, name, least) if count(table.limit(1)) else None


def _of_whole_groups(connection: Connection, judged: ibis.Table) -> ibis.Table:
    """Returns the judgements for all queries of the groups of their queries; of several grades the highest counts."""
    searches = read_events(connection, ["searches"]).searches
    assert searches is not None
    members = searches.filter(searches["group"].notnull()).select("query", "group").distinct()
    of_groups = judged.join(members, "query").select("group", "doc_id", "grade").distinct()
    both = ibis.union(
        judged.select("query", "doc_id", "grade"), of_groups.join(members, "group").select("query", "doc_id", "grade")
    )
    return both.group_by(_PAIR).agg(grade=both.grade.max())


def choose_alpha(evidence: Evidence, scores: ibis.Table, judged: Judges | None, *, precision: float) -> float:
    """Returns the smallest threshold above which the judged candidates have the wanted precision.

    Raises:
      InputError: there are too few judged candidates, or no threshold reaches the precision.
    """
    pairs = evidence.candidate_pairs
    found = None
    if judged is not None and pairs is not None:
        candidates = scores.semi_join(pairs.distinct(), _PAIR).join(judged.table, _PAIR)
        found = candidates.select("score", "relevant").to_pyarrow()
    if found is None or len(found) < MIN_JUDGED_PASSING:
        raise InputError(
            f"--alpha-precision {precision}: {0 if found is None else len(found)} candidates are judged, and "
            f"{MIN_JUDGED_PASSING} are needed to choose alpha by its precision; give --alpha"
        )
    score, relevant = found["score"].to_numpy(), found["relevant"].to_numpy(zero_copy_only=False).astype(np.float64)
    order = np.argsort(-score, kind="stable")
    score, relevant = score[order], relevant[order]
    passing = np.arange(1, len(score) + 1)
    ends = np.append(score[1:] < score[:-1], True)  # equal scores pass together
    enough = ends & (passing >= MIN_JUDGED_PASSING) & (np.cumsum(relevant) / passing >= precision)
    if not enough.any():
        best = (np.cumsum(relevant) / passing)[ends & (passing >= MIN_JUDGED_PASSING)].max()
        raise InputError(
            f"--alpha-precision {precision}: no alpha reaches it on the {len(score)} judged candidates; the best "
            f"precision is {best:.3f}. Ask for less, or give a better --discriminator"
        )
    last = int(np.flatnonzero(enough)[-1])
    # The threshold is exclusive, so it lies at the next lower score, or just below the lowest one.
    return float(score[last + 1]) if last + 1 < len(score) else max(0.0, float(np.nextafter(score[last], 0)))


def precision_by_source(
    evidence: Evidence, scores: ibis.Table | None, judged: Judges, *, alpha: float
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the precision of each source of evidence by the judges: source -> "before" and "after" theta -> figures.

    The figures are pairs (distinct), judged, and value, low, high and queries of the share of the judged pairs that is
    relevant, with its bootstrap interval over queries. Sources that theta does not decide have only "before".
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, supports in evidence.supports.items():
        for source in sorted(supports.select("source").distinct().to_pyarrow()["source"].to_pylist()):
            pairs = supports.filter(supports.source == source).select(*_PAIR).distinct()
            found[source] = {"before": _precision(pairs, judged)}
            if name in DECIDED_BY_THETA and scores is not None:
                passing = pairs.semi_join(scores.filter(scores.score > alpha), _PAIR)
                found[source]["after"] = _precision(passing, judged)
    return found


def _precision(pairs: ibis.Table, judged: Judges) -> dict[str, Any]:
    known = pairs.join(judged.table, _PAIR)
    by_query = known.group_by("query").agg(relevant=known.relevant.sum(), judged=known.count())
    table = by_query.order_by("query").to_pyarrow()
    relevant, number = (table[name].to_numpy().astype(np.float64) for name in ("relevant", "judged"))
    interval = bootstrap_ratio(relevant, number)
    return {"pairs": count(pairs), "judged": int(number.sum()), **interval.as_json(digits=4)}
