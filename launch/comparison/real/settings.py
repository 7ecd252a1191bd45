"""The settings of each real data set of launch.compare. They were fixed before a result on a test part was seen.

Tuning reads the dev split alone, and only the learning rate is tuned. A change of these constants after a test result
would make the test part a dev part, so that a change needs a new test part.
"""

from dataclasses import dataclass

from crops_jax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RealSet:
    """How the systems of one data set are trained and measured."""

    source: str
    """The --source of data.convert that makes its log tables."""
    from_time: str = ""
    """The start of the test period, of which the test part consists. Empty: `by` decides."""
    by: str = ""
    """"split": the judgements have a split. "group": a fraction of the groups of queries is the test part."""
    fraction: float = 0.0
    """The share of the groups that are the test part."""
    positives: str = ""
    """--grade-levels of the binary labels: the minimum grade of a positive. Empty: the labels are mined from clicks."""
    grades: str = ""
    """--grade-levels of the graded labels. Empty: every perspective whose tables the logs have."""
    lexical_negatives: int = 0
    """The number of documents of each query at level 0 from BM25's ranks LEXICAL_RANKS, for the graded labels."""
    max_tokens: int = 128
    """The maximum number of tokens of a query and of a document, for every system."""
    batch: int = 64
    """The number of pairs in a batch of the systems that learn from pairs."""
    graded_batch: tuple[int, int] = (64, 1)
    """The numbers of queries, and of documents for each query, in a batch of the graded system."""
    epochs: float = 3.0
    """The number of documents that training presents, as a multiple of the number of pairs, for every system."""
    learning_rate: float = 2e-5
    learning_rate_factors: tuple[float, ...] = (1.0, 0.5, 2.0)
    """The tuning grid of every trained system, as multiples of learning_rate."""
    dev_fraction: float = 0.05
    """The share of the training queries that form the dev split."""
    metrics: tuple[str, ...] = ("ndcg@10", "recall@10", "recall@100")
    """The metrics of the main table, keys of launch.comparison.real.measures.LABELS."""


LEXICAL_RANKS = (20, 100)
"""The ranks of BM25 from which negatives are drawn. Documents of better ranks are often relevant without a judgement.
"""
_CLICKED = ("clicked_ndcg@10", "clicked_recall@10", "clicked_recall@100")
_UNSEEN = ("unseen_ndcg@10", "unseen_recall@10", "unseen_recall@100")

REAL_SETS = {
    "bestbuy": RealSet(
        source="bestbuy",
        from_time="2011-10-10T17:33",
        max_tokens=64,
        learning_rate=5e-5,
        metrics=(*_CLICKED, *_UNSEEN),
    ),
    "trec_session": RealSet(
        source="trec_session",
        by="group",
        fraction=0.25,
        max_tokens=64,
        graded_batch=(16, 4),
        dev_fraction=0.2,
        metrics=("ndcg@10", *_CLICKED[:2]),
    ),
    "homedepot": RealSet(
        source="homedepot",
        by="split",
        positives="1.33=4",
        grades="0=1,1=2,1.33=3,1.67=4,2=5",
        lexical_negatives=1,
        graded_batch=(64, 5),
        learning_rate=6e-5,
    ),
    "icecat": RealSet(
        source="icecat",
        by="group",
        fraction=0.3,
        positives="2=4",
        grades="0=1,1=2,2=4,3=5",
        lexical_negatives=4,
        graded_batch=(16, 4),
        dev_fraction=0.2,
    ),
    "scifact": RealSet(
        source="beir",
        by="split",
        positives="1=4",
        grades="1=4",
        lexical_negatives=4,
        graded_batch=(32, 2),
        dev_fraction=0.1,
    ),
}
"""The data sets by name. The times, grades and batches are those of configs/bestbuy.py and configs/trec_session.py and
of earlier runs on dev parts."""


def real_set(name: str) -> RealSet:
    """Returns the settings of a data set. Raises InputError if the name is unknown."""
    if name not in REAL_SETS:
        raise InputError(f"--real {name!r}: name one of {', '.join(REAL_SETS)}")
    return REAL_SETS[name]
