"""Days that are added, replaced and forgotten give the labels of one run over all of them."""

import json
from random import Random

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.artifacts import read_manifest
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.errors import InputError
from data.mining.relevance import precision
from tests.data.mining.mined_days.days import DAYS, add, contents, logs_of, one_run, write_partitioned, write_whole


def check_days(root, discriminator, random, number, order, again, **options):
    options = {"discriminator": str(discriminator), "alpha": 0.3, "beta": 0.2, **options}
    tables = logs_of(random, number)
    whole, days = write_whole(root / "whole", tables), write_partitioned(root / "days", tables)
    happened = {str(row["time"].date()) for name in ("searches", "feed_views") for row in tables[name]}
    order = [day for day in order if day in happened]
    for day in order:
        add(day, days, root, **options)
    if again in happened:
        # Read from the whole log, what lies before the lead-in and after the day changes nothing.
        outcome = add(again, whole, root, **options)
        assert outcome["pairs_scored"] == 0
    assert outcome["days"] == sorted(order)
    found = contents(root / "labels")
    if not found[0]:
        # A day without labels is added all the same; a whole log without any is refused.
        with pytest.raises(InputError, match="nothing was mined"):
            one_run(whole, root / "expected", **options)
    else:
        assert found == one_run(whole, root / "expected", **options)
    return found[0]


LOGS = {
    "random": st.integers(0, 2**32).map(Random),
    "number": st.integers(10, 60),
    "order": st.permutations(DAYS),
    "again": st.sampled_from(DAYS),
    "min_supporters": st.sampled_from([1, 2]),
    "only_unsatisfied": st.booleans(),
}


@pytest.mark.slow
@settings(max_examples=25)
@given(**LOGS)
def test_days_in_any_order_and_repeated_give_the_labels_of_one_run(tmp_path_factory, discriminator, **drawn):
    check_days(tmp_path_factory.mktemp("days"), discriminator, **drawn)


@pytest.mark.parametrize(("seed", "min_supporters"), [(1, 2), pytest.param(0, 1, marks=pytest.mark.slow)])
def test_some_days_give_the_labels_of_one_run(tmp_path, discriminator, seed, min_supporters):
    drawn = {"order": [DAYS[i] for i in (2, 0, 1)], "again": DAYS[1], "min_supporters": min_supporters}
    labels = check_days(tmp_path, discriminator, Random(seed), 60, **drawn)
    sources = {entry["source"] for row in labels for entry in json.loads(row["evidence"])}
    assert {"search_log", "query_level", "system_level", "ranked_not_shown"} <= sources


def chains(labels):
    return {
        (row["query"], row["doc_id"], entry["source"], entry["gap_seconds"])
        for row in labels
        for entry in json.loads(row["evidence"])
    }


FIRST = {
    ("blue shoe", "d2", "search_log", None),
    ("red shoe", "d4", "shown_not_clicked", None),
    ("red shoe", "d3", "system_level", 1740.0),
}
SECOND = {
    ("red shoes", "d1", "search_log", None),
    ("red shoe", "d1", "query_level", 89.0),
    ("red shoe", "d1", "system_level", 61.0),
}
"""d1 was also viewed 28 s before "red shoes", but no document has the word "shoes", so theta is 0 there."""


def test_what_reaches_over_midnight_belongs_to_the_later_day(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    options = {"discriminator": str(discriminator), "alpha": 0.0}
    add(DAYS[1], days, tmp_path, **options)
    second = contents(tmp_path / "labels")
    # d3 was viewed 1829 s before "red shoes", outside the window.
    assert chains(second[0]) == SECOND
    outcome = add(DAYS[0], days, tmp_path, **options)
    assert chains(contents(tmp_path / "labels")[0]) == FIRST | SECOND
    assert outcome["days"] == DAYS[:2]
    assert read_manifest(tmp_path / "labels")["mined"]["days"] == DAYS[:2]
    outcome = add(DAYS[1], days, tmp_path, forget_before=DAYS[1], **options)
    assert (outcome["forgotten"], outcome["days"]) == ([DAYS[0]], [DAYS[1]])
    assert contents(tmp_path / "labels") == second
    kept = "".join(str(pq.read_table(file).to_pylist()) for file in (tmp_path / "state").rglob("*.parquet"))
    assert "blue shoe" not in kept


def test_other_days_are_not_opened(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    options = {"discriminator": str(discriminator), "alpha": 0.0}
    for name in ("searches", "candidates", "feed_views"):
        (days / name / f"day={DAYS[2]}" / "part-0.parquet").write_text("broken")
    add(DAYS[1], days, tmp_path, **options)
    with pytest.raises(InputError, match="is not a Parquet file"):
        add(DAYS[2], days, tmp_path, **options)
    assert read_manifest(tmp_path / "labels")["mined"]["days"] == [DAYS[1]]
    # A day without anything of the days before its lead-in.
    for name in ("searches", "candidates", "feed_views"):
        (days / name / f"day={DAYS[2]}" / "part-0.parquet").unlink()
        (days / name / f"day={DAYS[0]}" / "part-0.parquet").unlink()
        (days / name / f"day={DAYS[0]}").rmdir()
    tables = {name: [row for row in rows if row.get("search_id") == "s2"] for name, rows in over_midnight.items()}
    tables["feed_views"] = over_midnight["feed_views"][1:]
    alone = write_whole(tmp_path / "alone", tables)
    add(DAYS[1], days, tmp_path, **options)
    assert contents(tmp_path / "labels") == one_run(alone, tmp_path / "expected", **options)


def test_pairs_are_scored_once(tmp_path, discriminator, over_midnight, monkeypatch):
    asked = []
    plain = LexicalDiscriminator.score

    def score(self, queries, documents):
        asked.extend(zip(queries, documents, strict=True))
        return plain(self, queries, documents)

    monkeypatch.setattr(LexicalDiscriminator, "score", score)
    monkeypatch.setattr(precision, "RANDOM_PAIRS", 0)  # only the pairs of the log are counted here
    days = write_partitioned(tmp_path / "days", over_midnight)
    options = {"discriminator": str(discriminator), "alpha": 0.0}
    scored = [add(day, days, tmp_path, **options)["pairs_scored"] for day in (DAYS[0], DAYS[1], DAYS[0], DAYS[1])]
    assert scored == [1, 2, 0, 0]
    assert len(asked) == len(set(asked)) == 3


def test_a_discriminator_fitted_on_the_first_day_decides_on_the_others(tmp_path, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    first = add(DAYS[0], days, tmp_path)["discriminator"]
    assert first["kind"] == "lexical"
    assert add(DAYS[1], days, tmp_path)["discriminator"] == first
