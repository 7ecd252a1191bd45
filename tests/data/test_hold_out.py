"""data.hold_out: by time, by group, by split; and that nothing held out leaks."""

import json

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax.artifacts import read_manifest
from crops_jax.errors import InputError
from crops_jax.hashing import split_by_hash
from data.hold_out import hold_out
from data.inspect import describe
from data.mine import MineArguments, mine
from data.mining.splits import held_out_groups
from data.tables import open_logs
from data.tables.truth import write_truth
from tests.mining_arguments import hold_out_arguments

THINGS = ["lamp", "chair", "phone", "table", "clock", "vase", "knife", "spoon", "plate", "glass"]
DOCUMENTS = [
    {"doc_id": f"{colour}-{thing}", "title": f"{colour} {thing}"} for thing in THINGS for colour in ("red", "blue")
]


def search(search_id, user_id, query, time, group=None):
    return {"search_id": search_id, "user_id": user_id, "query": query, "time": time, "group": group}


def clicked(search_id, doc_id):
    return {"search_id": search_id, "doc_id": doc_id, "stage": "shown", "clicked": True}


def passed_over(search_id, doc_id):
    return {"search_id": search_id, "doc_id": doc_id, "stage": "shown", "clicked": False}


@pytest.fixture
def tables(at):
    """One user a thing, a thousand seconds apart: "Red THING", 60 s later "red THING please", each with a click on the
    red thing, and the next thing's blue one shown in vain. The group is the thing's."""
    searches, candidates = [], []
    for i, thing in enumerate(THINGS):
        searches += [
            search(f"a{i}", f"u{i}", f"Red {thing}", at(1000 * i), f"group-{thing}"),
            search(f"b{i}", f"u{i}", f"red {thing} please", at(1000 * i + 60), f"group-{thing}"),
        ]
        candidates += [
            clicked(f"a{i}", f"red-{thing}"),
            passed_over(f"a{i}", f"blue-{THINGS[i - 1]}"),
            clicked(f"b{i}", f"red-{thing}"),
        ]
    views = [{"user_id": "u0", "doc_id": "blue-lamp", "time": at(1000 * i)} for i in range(10)]
    return {"documents": DOCUMENTS, "searches": searches, "candidates": candidates, "feed_views": views}


def held_out(logs, output, **arguments):
    return hold_out(hold_out_arguments(logs=str(logs), output=str(output), **arguments))


def rows(folder, table, *columns):
    found = open_logs(folder).read(table).to_pylist()
    return [tuple(row[column] for column in columns) for row in found]


def test_by_time(write_logs, tables, tmp_path):
    # 7000 s: thing 7, the spoon, is the first of the test period.
    outcome = held_out(write_logs(**tables), tmp_path / "split", from_="2024-05-31T01:56:40")
    split = tmp_path / "split"
    assert outcome["searches"] == {"train": 14, "test": 6}
    assert rows(split, "searches", "search_id") == [(f"{kind}{i}",) for i in range(7) for kind in "ab"]
    assert len(rows(split, "candidates", "doc_id")) == 21
    assert len(rows(split, "feed_views", "doc_id")) == 7
    assert len(rows(split, "documents", "doc_id")) == 20
    assert rows(split, "test_clicks", "query", "doc_id") == [
        ("red glass", "red-glass"),
        ("red glass please", "red-glass"),
        ("red plate", "red-plate"),
        ("red plate please", "red-plate"),
        ("red spoon", "red-spoon"),
        ("red spoon please", "red-spoon"),
    ]
    assert rows(split, "test_reformulations", "query", "doc_id") == [
        ("red glass", "red-glass"),
        ("red plate", "red-plate"),
        ("red spoon", "red-spoon"),
    ]
    fitted = json.loads((split / "discriminator" / "fitted.json").read_text())
    assert fitted["latest_time"] == "2024-05-31T01:41:00+00:00"
    assert read_manifest(split)["kind"] == "logs"
    assert read_manifest(split / "discriminator")["kind"] == "discriminator"


def test_the_truth_of_a_generated_world_decides_which_reformulations_are_tested(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    pairs = [("red glass", "red-glass"), ("red spoon", "blue-spoon"), ("red plate please", "red-plate")]
    truth = [{"query": query, "doc_id": document, "grade": 2.0, "shown": True} for query, document in pairs]
    write_truth(logs, pa.Table.from_pylist(truth))
    given = {"from_": "2024-05-31T01:56:40", "reformulations_by": "truth"}
    outcome = held_out(logs, tmp_path / "split", **given)
    # Three documents were clicked after a reformulation. The truth knows one of them as relevant for the first query.
    assert outcome["test_reformulations"]["candidates"] == 3
    assert rows(tmp_path / "split", "test_reformulations", "query", "doc_id") == [("red glass", "red-glass")]
    # The similarity of the two queries does not matter then.
    assert held_out(logs, tmp_path / "again", **given, beta=1.0)["test_reformulations"]["passing"] == 1


def test_a_query_before_the_border_has_no_test_reformulation(write_logs, tables, tmp_path):
    # The spoon's first query is trained on; its reformulation, 60 s later, is held out.
    held_out(write_logs(**tables), tmp_path / "split", from_="2024-05-31T01:57:00")
    assert ("red spoon please", "red-spoon") in rows(tmp_path / "split", "test_clicks", "query", "doc_id")
    assert [query for (query,) in rows(tmp_path / "split", "test_reformulations", "query")] == [
        "red glass",
        "red plate",
    ]


def test_mining_a_split_uses_its_discriminator(write_logs, tables, tmp_path):
    held_out(write_logs(**tables), tmp_path / "split", from_="2024-05-31T01:56:40")
    outcome = mine(MineArguments(logs=str(tmp_path / "split"), output=str(tmp_path / "labels")))
    assert outcome["discriminator"]["from"] == "LOGS/discriminator"
    assert outcome["by_source"]["query_level"] == 7
    # An earlier --until cannot use what was fitted on later searches.
    outcome = mine(
        MineArguments(logs=str(tmp_path / "split"), output=str(tmp_path / "early"), until="2024-05-31T00:30:00")
    )
    assert "past --until" in outcome["discriminator"]["from"]
    assert outcome["discriminator"]["latest_time"] < "2024-05-31T00:30:00"


def test_what_happened_later_changes_neither_labels_nor_discriminator(write_logs, tables, at, tmp_path):
    border = at(7000)
    changed = dict(tables)
    late = {row["search_id"] for row in tables["searches"] if row["time"] >= border}
    changed["searches"] = [
        row | ({"user_id": "u0", "query": "red lamp", "time": border} if row["search_id"] in late else {})
        for row in tables["searches"]
    ]
    changed["candidates"] = [
        row | ({"clicked": not row["clicked"]} if row["search_id"] in late else {}) for row in tables["candidates"]
    ] + [clicked(search_id, "blue-clock") for search_id in sorted(late)]
    changed["feed_views"] = [row for row in tables["feed_views"] if row["time"] < border] + [
        {"user_id": f"u{i}", "doc_id": "blue-vase", "time": border} for i in range(5)
    ]
    for name, variant in (("one", tables), ("two", changed)):
        held_out(write_logs(name, **variant), tmp_path / f"split-{name}", from_="2024-05-31T01:56:40")
        mine(MineArguments(logs=str(tmp_path / f"split-{name}"), output=str(tmp_path / f"labels-{name}")))
    kept = [
        ("split", "searches.parquet"),
        ("split", "candidates.parquet"),
        ("split", "feed_views.parquet"),
        ("split", "discriminator/discriminator.json"),
        ("split", "discriminator/corpus.npz"),
        ("split", "discriminator/fitted.json"),
        ("labels", "labels.parquet"),
        ("labels", "alpha_sweep.json"),
    ]
    for folder, file in kept:
        one, two = (tmp_path / f"{folder}-{name}" / file for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), file
    one, two = (pq.read_table(tmp_path / f"split-{name}" / "test_clicks.parquet") for name in ("one", "two"))
    assert one != two


def test_documents_of_the_future_do_not_reach_the_discriminator(write_logs, tables, at, tmp_path):
    variants = {}
    for name, title in (("one", "red lamp please"), ("two", "other words here")):
        future = {"doc_id": "future", "title": title, "published_at": at(7000)}
        logs = write_logs(name, **(tables | {"documents": [*DOCUMENTS, future]}))
        held_out(logs, tmp_path / f"split-{name}", from_="2024-05-31T01:56:40")
        folder = tmp_path / f"split-{name}" / "discriminator"
        variants[name] = [(folder / file).read_bytes() for file in ("discriminator.json", "corpus.npz")]
    assert variants["one"] == variants["two"]


def test_a_discriminator_that_read_past_the_border_is_refused(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    held_out(logs, tmp_path / "late", from_="2024-05-31T02:00:00")
    late = str(tmp_path / "late" / "discriminator")
    with pytest.raises(InputError, match="not before --from"):
        held_out(logs, tmp_path / "split", from_="2024-05-31T01:56:40", discriminator=late)
    assert not (tmp_path / "split").exists()
    held_out(logs, tmp_path / "split", from_="2024-05-31T02:10:00", discriminator=late)
    assert (tmp_path / "split" / "discriminator" / "fitted.json").read_bytes() == (
        tmp_path / "late" / "discriminator" / "fitted.json"
    ).read_bytes()
    with pytest.raises(InputError, match="not before --until"):
        mine(
            MineArguments(
                logs=str(logs), output=str(tmp_path / "labels"), until="2024-05-31T01:00:00", discriminator=late
            )
        )


def test_by_group(write_logs, tables, tmp_path):
    tables["judgements"] = [
        {"query": f"red {thing}", "doc_id": f"red-{thing}", "grade": 1.0, "split": "test" if thing == "lamp" else None}
        for thing in THINGS
    ] + [{"query": "red lamp", "doc_id": "blue-lamp", "grade": 0.0}]
    logs = write_logs(**tables)
    outcome = held_out(logs, tmp_path / "split", fraction=0.3, by="group")
    assert outcome["groups"] == {"all": 10, "held_out": 3}
    assert outcome["searches"] == {"train": 14, "test": 6}
    kept = {query.split()[1] for (query,) in rows(tmp_path / "split", "searches", "query")}
    held = set(THINGS) - kept
    assert len(held) == 3
    assert {query.split()[1] for (query,) in rows(tmp_path / "split", "test_clicks", "query")} == held
    assert {query.split()[1] for (query,) in rows(tmp_path / "split", "test_reformulations", "query")} <= held
    splits = dict(rows(tmp_path / "split", "judgements", "query", "split"))
    assert splits == {f"red {thing}": "test" if thing in held else "train" for thing in THINGS}


def test_groups_are_drawn_by_seed_and_one_is_always_left():
    connection = ibis.duckdb.connect()
    groups = pa.table({"query": [f"q{i}" for i in range(9)], "group": [f"g{i // 2}" for i in range(9)]})

    def drawn(fraction, seed):
        found = held_out_groups(connection, ibis.memtable(groups), fraction=fraction, seed=seed)
        return tuple(found.to_pyarrow()["group"].to_pylist())

    assert len(drawn(0.4, 0)) == 2
    assert drawn(0.4, 0) == drawn(0.4, 0)
    assert set(drawn(0.2, 0)) < set(drawn(0.6, 0))
    assert len({drawn(0.4, seed) for seed in range(5)}) > 1
    assert len(drawn(0.01, 0)) == 1
    assert len(drawn(0.99, 0)) == 4
    with pytest.raises(InputError, match="there is 1 group"):
        held_out_groups(connection, ibis.memtable(groups.slice(0, 1)), fraction=0.5, seed=0)


def test_a_judged_query_of_a_held_out_group_is_test_even_if_others_asked_it_too(write_logs, tables, at, tmp_path):
    tables["searches"] += [search(f"c{i}", "v", "shared", at(i), f"group-{thing}") for i, thing in enumerate(THINGS)]
    tables["judgements"] = [{"query": "Shared", "doc_id": "red-lamp", "grade": 1.0, "split": "train"}]
    held_out(write_logs(**tables), tmp_path / "split", fraction=0.1, by="group")
    assert rows(tmp_path / "split", "judgements", "query", "split") == [("shared", "test")]


def test_searches_without_a_group_are_grouped_by_query(write_logs, tables, tmp_path):
    for row in tables["searches"]:
        row["group"] = None
    outcome = held_out(write_logs(**tables), tmp_path / "split", fraction=0.5, by="group")
    assert outcome["groups"] == {"all": 20, "held_out": 10}
    train = {query.lower() for (query,) in rows(tmp_path / "split", "searches", "query")}
    assert train.isdisjoint(query for (query,) in rows(tmp_path / "split", "test_clicks", "query"))


def test_a_discriminator_for_groups_must_come_from_the_same_hold_out(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    held_out(logs, tmp_path / "one", fraction=0.3, by="group")
    theta = str(tmp_path / "one" / "discriminator")
    held_out(logs, tmp_path / "same", fraction=0.3, by="group", discriminator=theta)
    with pytest.raises(InputError, match="not fitted on the training part"):
        held_out(logs, tmp_path / "other", fraction=0.3, by="group", seed=1, discriminator=theta)
    other = write_logs("other-logs", **(tables | {"feed_views": tables["feed_views"][:1]}))
    with pytest.raises(InputError, match="not fitted on the training part"):
        held_out(other, tmp_path / "other", fraction=0.3, by="group", discriminator=theta)


JUDGED = {
    "documents": DOCUMENTS,
    "judgements": [
        {"query": f"red {thing}", "doc_id": f"red-{thing}", "grade": 1.0, "split": split}
        for thing, split in zip(THINGS, ["train"] * 7 + ["dev"] + ["test"] * 2, strict=True)
    ],
}


def test_judgements_alone_keep_their_split_or_are_drawn_by_query(write_logs, tmp_path):
    logs = write_logs(**JUDGED)
    outcome = held_out(logs, tmp_path / "own", by="split")
    assert outcome["judgements"] == {"dev": 1, "test": 2, "train": 7}
    outcome = held_out(logs, tmp_path / "drawn", by="group", fraction=0.4)
    assert outcome["judgements"]["test"] == 4
    with pytest.raises(InputError, match="--by split"):
        held_out(logs, tmp_path / "time", from_="2024-05-31")


def test_judgements_without_a_split_get_one_by_hash(write_logs, tables, tmp_path):
    tables["judgements"] = [
        {"query": f"red {thing}", "doc_id": f"red-{thing}", "grade": float(i % 2), "split": "dev" if i == 0 else None}
        for i, thing in enumerate(THINGS)
    ]
    held_out(write_logs(**tables), tmp_path / "split", from_="2024-05-31T01:56:40")
    splits = dict(rows(tmp_path / "split", "judgements", "query", "split"))
    assert splits.pop("red lamp") == "dev"
    assert splits == {query: split_by_hash(query) for query in splits}


def test_documents_written_for_held_out_queries_are_dropped(write_logs, tables, tmp_path):
    tables["knowledge_documents"] = [
        {"query": query, "doc_id": f"k-{query}", "title": "t", "text": "", "model": "m", "prompt_sha256": "0" * 64}
        for query in ("red lamp", "red glass")
    ]
    outcome = held_out(write_logs(**tables), tmp_path / "split", from_="2024-05-31T01:56:40")
    assert outcome["knowledge_documents"] == {"kept": 1, "dropped": 1}
    assert rows(tmp_path / "split", "knowledge_documents", "query") == [("red lamp",)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "choose one way to hold out"),
        ({"from_": "2024-05-31", "by": "group"}, "choose one way to hold out"),
        ({"fraction": 0.2}, "choose one way to hold out"),
        ({"by": "group"}, "go together"),
        ({"by": "split", "fraction": 0.2}, "go together"),
        ({"by": "group", "fraction": 1.0}, "not between 0 and 1"),
        ({"by": "split"}, "needs logs without searches"),
        ({"from_": "soon"}, "--from 'soon'"),
        ({"from_": "2024-05-31"}, "training part is empty"),
        ({"from_": "2024-06-01"}, "test part is empty"),
        ({"from_": "2024-05-31T01:00", "alpha": -1}, "--alpha"),
        ({"from_": "2024-05-31T01:00", "reformulations_by": "truth"}, "has no truth"),
    ],
)
def test_wrong_arguments_name_themselves_and_write_nothing(write_logs, tables, tmp_path, arguments, message):
    logs = write_logs(**tables)
    with pytest.raises(InputError, match=message):
        held_out(logs, tmp_path / "split", **arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}


def test_bad_rows_are_set_aside_and_the_split_is_that_of_the_clean_tables(write_logs, tables, tmp_path):
    write_logs("clean", **tables)
    write_logs(
        "dirty",
        documents=[*tables["documents"], {"doc_id": "", "title": "nameless"}, tables["documents"][0]],
        searches=[*tables["searches"], search("bad", "u0", " ", tables["searches"][0]["time"])],
        candidates=[*tables["candidates"], clicked("bad", "red-lamp"), clicked("a0", "unknown")],
        feed_views=tables["feed_views"],
    )
    expected = held_out(tmp_path / "clean", tmp_path / "split", from_="2024-05-31T01:56:40")
    with pytest.raises(InputError, match="table documents, column doc_id"):
        held_out(tmp_path / "dirty", tmp_path / "mended", from_="2024-05-31T01:56:40")
    outcome = held_out(tmp_path / "dirty", tmp_path / "mended", from_="2024-05-31T01:56:40", on_bad_rows="quarantine")
    quarantined = {
        "documents": {"doc_id: an empty id": 1, "doc_id: repeats the key of an earlier row": 1},
        "searches": {"query: an empty query (value)": 1},
        "candidates": {"doc_id: not in documents": 1, "search_id: set aside in searches": 1},
    }
    quarantine = {"quarantined": quarantined, "quarantine": str(tmp_path / "mended.quarantine")}
    assert outcome == {**expected, "split": str(tmp_path / "mended"), **quarantine}
    assert read_manifest(tmp_path / "mended")["held_out"]["quarantined"] == quarantined
    assert describe(tmp_path / "mended.quarantine")["rows"] == {"candidates": 2, "documents": 2, "searches": 1}
    for table in open_logs(tmp_path / "split").names:
        assert open_logs(tmp_path / "mended").read(table).equals(open_logs(tmp_path / "split").read(table))


def test_an_output_that_is_there_is_refused_before_its_quarantine_is_touched(write_logs, tables, tmp_path):
    bad = search("bad", "u0", " ", tables["searches"][0]["time"])
    logs = write_logs(**{**tables, "searches": [*tables["searches"], bad]})
    arguments = {"from_": "2024-05-31T01:56:40", "on_bad_rows": "quarantine"}
    held_out(logs, tmp_path / "split", **arguments)
    kept = (tmp_path / "split.quarantine" / "searches.parquet").stat()
    with pytest.raises(InputError, match="--overwrite"):
        held_out(logs, tmp_path / "split", **arguments)
    assert (tmp_path / "split.quarantine" / "searches.parquet").stat() == kept
    held_out(logs, tmp_path / "split", overwrite=True, **arguments)
