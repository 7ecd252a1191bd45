"""The log tables of a served day. They contain none of the hidden truth of the world."""

import numpy as np
import pyarrow as pa

from data.world.behaviour.day import Day, Searches
from data.world.truth.documents import Documents
from data.world.world import World

# The shares of searches that start with a capital letter, and that have white space which normalisation removes.
_CAPITAL_SHARE = 0.1
_SPACES_SHARE = 0.03
_STAGES = ("shown", "ranked_not_shown", "filtered_before_ranking")
_TIME = pa.timestamp("us", tz="UTC")


def documents_table(documents: Documents) -> pa.Table:
    """Returns the catalogue of all days; `published_at` is the time of publication of each document."""
    texts = {name: pa.array(column, pa.string()) for name, column in documents.texts._asdict().items()}
    published = pa.array(documents.published_at_us, pa.int64()).cast(_TIME)
    return pa.table({"doc_id": pa.array(documents.doc_id, pa.string()), **texts, "published_at": published})


def day_tables(world: World, day: Day) -> dict[str, pa.Table]:
    """Returns the tables searches, candidates and feed_views of a day, by name."""
    searches, feed = day.searches, day.feed
    search_id = pa.array([f"s{day.number:03d}-{i:06d}" for i in range(len(searches.user))], pa.string())
    doc_id = pa.array(world.documents.doc_id, pa.string())
    user_id = pa.array(world.users.user_id, pa.string())
    return {
        "searches": pa.table(
            {
                "search_id": search_id,
                "user_id": user_id.take(pa.array(searches.user)),
                "query": pa.array(_type_queries(world, searches, day.number), pa.string()),
                "time": pa.array(searches.time_us, pa.int64()).cast(_TIME),
            }
        ),
        "candidates": _candidates_table(searches, search_id, doc_id),
        "feed_views": pa.table(
            {
                "user_id": user_id.take(pa.array(feed.user)),
                "doc_id": doc_id.take(pa.array(feed.document)),
                "time": pa.array(feed.time_us, pa.int64()).cast(_TIME),
                "watch_seconds": pa.array(feed.watch_seconds, pa.float64()),
                "liked": pa.array(feed.liked, pa.bool_()),
            }
        ),
    }


def _type_queries(world: World, searches: Searches, day: int) -> list[str]:
    """Returns the query texts as users type them: some have a capital letter, some have superfluous white space."""
    rng = world.streams.generator("typing", day)
    capital = rng.random(len(searches.query)) < _CAPITAL_SHARE
    spaces = rng.random(len(searches.query)) < _SPACES_SHARE
    texts = [world.queries.text[q] for q in searches.query]
    texts = [text.capitalize() if c else text for text, c in zip(texts, capital, strict=True)]
    return [text.replace(" ", "  ") + " " if s else text for text, s in zip(texts, spaces, strict=True)]


def _candidates_table(searches: Searches, search_id: pa.Array, doc_id: pa.Array) -> pa.Table:
    """Returns the candidates of each search: shown ones by position, then ranked ones, then filtered ones."""
    pages = searches.pages
    documents = np.concatenate([pages.shown, pages.ranked, pages.filtered], axis=1)
    widths = [stage.shape[1] for stage in pages]
    stage = np.repeat(np.arange(len(widths)), widths)
    row, column = np.nonzero(documents >= 0)
    is_shown = column < widths[0]
    position = np.minimum(column, widths[0] - 1)
    clicked = searches.clicked[row, position]

    def masked(condition: np.ndarray, values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=~condition)

    return pa.table(
        {
            "search_id": search_id.take(pa.array(row)),
            "doc_id": doc_id.take(pa.array(documents[row, column])),
            "stage": pa.array(_STAGES).take(pa.array(stage[column])),
            "position": masked(is_shown, column + 1, pa.int32()),
            "clicked": masked(is_shown, clicked, pa.bool_()),
            "liked": masked(is_shown, searches.liked[row, position], pa.bool_()),
            "watch_seconds": masked(is_shown & clicked, searches.watch_seconds[row, position], pa.float64()),
        }
    )
