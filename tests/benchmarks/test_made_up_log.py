"""The log that mining is measured on."""

import itertools

import pyarrow.parquet as pq
import pytest

from benchmarks.made_up_log import EVENT_SHARES, write_log
from crops_jax.discriminator.similarity import TrigramSimilarity
from data.tables import open_logs


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made_up") / "logs"
    return folder, write_log(folder, events=10_000)


def test_it_passes_every_check_and_has_the_size_asked_for(log):
    folder, rows = log
    logs = open_logs(folder)
    assert rows == {name: logs.num_rows(name) for name in logs.names}
    for name, share in EVENT_SHARES.items():
        assert abs(rows[name] / 10_000 - share) < 0.2 * share


def test_the_same_seed_gives_the_same_rows(log, tmp_path):
    folder, rows = log
    assert write_log(tmp_path / "again", events=10_000) == rows
    for name in rows:
        one, other = (pq.read_table(place / f"{name}.parquet") for place in (folder, tmp_path / "again"))
        by = [(column, "ascending") for column in one.column_names]
        assert one.sort_by(by).equals(other.sort_by(by))
    write_log(tmp_path / "other", events=10_000, seed=1)
    assert not pq.read_table(tmp_path / "other" / "searches.parquet").equals(pq.read_table(folder / "searches.parquet"))


def test_users_rephrase_within_90_seconds_to_similar_queries(log):
    searches = open_logs(log[0]).read("searches").sort_by([("user_id", "ascending"), ("time", "ascending")]).to_pylist()
    pairs = [
        (here["query"].lower(), there["query"].lower())
        for here, there in itertools.pairwise(searches)
        if here["user_id"] == there["user_id"] and 0 < (there["time"] - here["time"]).total_seconds() <= 90
    ]
    different = [pair for pair in pairs if pair[0] != pair[1]]
    alike = TrigramSimilarity().score(*map(list, zip(*different)))
    assert len(different) > 100
    assert 0.1 < (alike >= 0.5).mean() < 0.9
