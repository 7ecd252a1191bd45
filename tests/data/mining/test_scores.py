"""Scores on disk: what was scored before an interruption is not scored again."""

import zlib

import ibis
import numpy as np
import pyarrow as pa
import pytest

from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.errors import InputError
from data.mining.scores import RememberingDiscriminator, forget, remembering, theta_table
from data.tables import open_logs


class Slow:
    """Counts what it is asked; the score follows from the texts alone."""

    pairs_at_once = 4

    def __init__(self, fingerprint="f1", *, fails_after=None):
        self.fingerprint, self.fails_after, self.asked = fingerprint, fails_after, []

    def score(self, queries, documents):
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += list(zip(queries, documents, strict=True))
        return np.array([zlib.crc32(f"{q}\n{d}".encode()) / 2**32 for q, d in zip(queries, documents)], np.float32)

    def save(self, folder):
        (folder / "saved").touch()


PAIRS = [f"q{i}" for i in range(6)], ["red", "blue", "red", "東京", "", "red"]


def test_what_was_scored_is_not_scored_again(tmp_path):
    slow = Slow()
    first = RememberingDiscriminator(slow, tmp_path).score(*PAIRS)
    assert len(slow.asked) == 6
    again = RememberingDiscriminator(slow, tmp_path)
    np.testing.assert_array_equal(again.score(*PAIRS), first)
    assert len(slow.asked) == 6
    more = again.score(["new", "q1", "q0"], ["red", "blue", "blue"])
    assert slow.asked[6:] == [("new", "red"), ("q0", "blue")]
    assert more[1] == first[1]
    np.testing.assert_array_equal(RememberingDiscriminator(slow, tmp_path).score(["new"], ["red"]), more[:1])
    assert again.score([], []).shape == (0,)


def test_many_pairs_each_find_their_own_score(tmp_path):
    queries, documents = [f"q{i}" for i in range(3000)], [f"d{i % 7}" for i in range(3000)]
    slow = Slow()
    expected = slow.score(queries, documents)
    RememberingDiscriminator(slow, tmp_path).score(queries[::2], documents[::2])
    slow.asked.clear()
    np.testing.assert_array_equal(RememberingDiscriminator(slow, tmp_path).score(queries, documents), expected)
    assert len(slow.asked) == 1500


def test_another_discriminator_has_its_own_scores(tmp_path):
    RememberingDiscriminator(Slow("f1"), tmp_path).score(*PAIRS)
    other = Slow("f2")
    RememberingDiscriminator(other, tmp_path).score(*PAIRS)
    assert len(other.asked) == 6


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    RememberingDiscriminator(Slow(), tmp_path).score(*PAIRS)
    (file,) = (tmp_path / "f1").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"scores-.*parquet: scores that cannot be read"):
        RememberingDiscriminator(Slow(), tmp_path)


def test_the_cache_lies_beside_the_output_and_goes_with_it_unless_it_was_named(tmp_path):
    place = {"output": str(tmp_path / "labels"), "score_cache": None}
    remembering(Slow(), **place).score(*PAIRS)
    assert (tmp_path / "labels.scores" / "f1").is_dir()
    forget(**place)
    assert not (tmp_path / "labels.scores").exists()
    remembering(Slow(), **place).score(*PAIRS)
    (tmp_path / "labels.scores" / "notes.txt").write_text("somebody's own")
    forget(**place)
    assert [file.name for file in (tmp_path / "labels.scores").iterdir()] == ["notes.txt"]
    place["score_cache"] = str(tmp_path / "named")
    remembering(Slow(), **place).score(*PAIRS)
    forget(**place)
    assert (tmp_path / "named" / "f1").is_dir()


def test_a_quick_discriminator_is_left_as_it_is(tmp_path):
    lexical = LexicalDiscriminator.fit(["a b", "a b"], ["a b", "c"], np.array([1.0, 0.0]), corpus=["a b", "c"])
    assert remembering(lexical, output=str(tmp_path / "x"), score_cache=None) is lexical


def test_mining_that_was_interrupted_goes_on_where_it_was(write_logs, tmp_path):
    logs = open_logs(write_logs(judgements=[{"query": "q0", "doc_id": "d0", "grade": 1.0}]))
    connection = logs.connect()
    rows = [{"query": f"q{i % 3}", "doc_id": f"d{i % 10}"} for i in range(30)] + [{"query": "q0", "doc_id": "gone"}]
    pairs = ibis.memtable(pa.Table.from_pylist(rows + rows))
    stopped = Slow(fails_after=12)
    with pytest.raises(KeyboardInterrupt):
        theta_table(connection, pairs, RememberingDiscriminator(stopped, tmp_path / "scores"))
    assert len(stopped.asked) == 12
    slow = Slow()
    found = theta_table(connection, pairs, RememberingDiscriminator(slow, tmp_path / "scores")).to_pyarrow()
    assert len(found) == 30
    assert len(slow.asked) == 18
    assert not set(slow.asked) & set(stopped.asked)
    scores = {(row["query"], row["doc_id"]): row["score"] for row in found.to_pylist()}
    alone = Slow().score(["q2"], ["title 5"])[0]
    assert scores["q2", "d5"] == pytest.approx(alone, abs=1e-6)
