"""data.mine from log tables to labels.parquet."""

import json

import pyarrow.parquet as pq
import pytest

from crops_jax.artifacts import fingerprint, read_manifest
from crops_jax.errors import InputError, NamedFailure
from data.hold_out import hold_out
from data.mine import mine
from data.perspectives.judged import parse_grade_levels
from tests.mining_arguments import hold_out_arguments, mine_arguments
from tests.paths import SHARED_DATA

THINGS = ["lamp", "chair", "phone", "table", "clock", "vase", "knife", "spoon", "plate", "glass"]
DOCUMENTS = [
    {"doc_id": f"{colour}-{thing}", "title": f"{colour} {thing}"} for thing in THINGS for colour in ("red", "blue")
]


def search(search_id, user_id, query, time):
    return {"search_id": search_id, "user_id": user_id, "query": query, "time": time}


@pytest.fixture
def tables(at):
    """Ten users, one a thing: each asks "red THING" at 0 s and clicks it, and is also shown and passes over another
    thing; then asks "red THING please" at 60 s and clicks the blue thing too. The feed shows user 0 the blue lamp
    beforehand, and a document was written for "red lamp"."""
    searches, candidates = [], []
    for i, thing in enumerate(THINGS):
        other = THINGS[(i + 1) % len(THINGS)]
        searches += [
            search(f"a{i}", f"user-{i}", f"Red  {thing}", at(1000 * i)),
            search(f"b{i}", f"user-{i}", f"red {thing} please", at(1000 * i + 60)),
        ]
        candidates += [
            {"search_id": f"a{i}", "doc_id": f"red-{thing}", "stage": "shown", "clicked": True},
            {"search_id": f"a{i}", "doc_id": f"blue-{other}", "stage": "shown", "clicked": False},
            {"search_id": f"a{i}", "doc_id": f"red-{other}", "stage": "ranked_not_shown"},
            {"search_id": f"b{i}", "doc_id": f"red-{thing}", "stage": "shown", "clicked": True},
        ]
    return {
        "documents": DOCUMENTS,
        "searches": searches,
        "candidates": candidates,
        "feed_views": [{"user_id": "user-0", "doc_id": "blue-lamp", "time": at(0)}],
        "knowledge_documents": [
            {
                "query": "red lamp",
                "doc_id": "k1",
                "title": "a red lamp",
                "text": "",
                "model": "m",
                "prompt_sha256": "0" * 64,
            }
        ],
    }


def mined(logs, output, **arguments):
    outcome = mine(mine_arguments(logs=str(logs), output=str(output), **arguments))
    rows = pq.read_table(output / "labels.parquet").to_pylist()
    return outcome, {(row["query"], row["doc_id"]): row for row in rows}


def test_every_perspective_comes_together(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    outcome, labels = mined(logs, tmp_path / "labels", alpha=0.0, overwrite=True)
    assert list(labels) == sorted(labels)
    # Its own click, seen again after the reformulation: P1 wins, P0 stays in the evidence.
    row = labels["red lamp", "red-lamp"]
    assert (row["level"], row["source"]) == (5, "query_level")
    entries = json.loads(row["evidence"])
    assert [(entry["source"], entry["level"]) for entry in entries] == [("query_level", 5), ("search_log", 4)]
    assert entries[0]["via_query"] == "red lamp please"
    assert entries[0]["gap_seconds"] == 60.0
    assert entries[0]["supporters"] == 1
    assert row["score"] == entries[0]["score"] > 0.5
    assert labels["red lamp please", "red-lamp"]["level"] == 4
    assert labels["red lamp", "blue-chair"]["level"] == 3
    assert labels["red lamp", "red-chair"]["level"] == 2
    assert (labels["red lamp", "blue-lamp"]["source"], labels["red lamp", "blue-lamp"]["level"]) == ("system_level", 4)
    assert labels["red lamp", "k1"]["source"] == "knowledge_level"
    assert outcome["rows"] == len(labels)
    assert outcome["by_source"] == {
        "knowledge_level": 1,
        "query_level": 10,
        "ranked_not_shown": 10,
        "search_log": 10,
        "shown_not_clicked": 10,
        "system_level": 2,
    }
    assert outcome["by_level"] == {"2": 10, "3": 10, "4": 13, "5": 10}
    assert outcome["skipped"] == {}
    assert outcome["discriminator"]["from"].startswith("fitted here")
    assert outcome["query_level"]["candidates"] == outcome["query_level"]["passing"] == 10


def test_the_directory_holds_one_parquet_the_sweep_and_no_user_or_search(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    mined(logs, tmp_path / "labels")
    files = {path.name for path in (tmp_path / "labels").iterdir()}
    assert files == {"labels.parquet", "alpha_sweep.json", "manifest.json"}
    sweep = json.loads((tmp_path / "labels" / "alpha_sweep.json").read_text())
    assert [step["alpha"] for step in sweep["query_level"]] == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert set(sweep) == {"alpha", "query_level", "system_level"}
    text = "".join(pq.read_table(tmp_path / "labels" / "labels.parquet")["evidence"].to_pylist())
    assert "user-" not in text
    manifest = read_manifest(tmp_path / "labels")
    assert manifest["arguments"]["alpha"] == 0.6
    assert manifest["mined"]["by_level"]
    assert manifest["inputs"]["logs"]["fingerprint"]


def test_the_same_rows_in_another_order_give_the_same_bytes(write_logs, tables, tmp_path):
    mined(write_logs("one", **tables), tmp_path / "a")
    mined(write_logs("two", **{name: rows[::-1] for name, rows in tables.items()}), tmp_path / "b")
    for file in ("labels.parquet", "alpha_sweep.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_alone_the_search_log_needs_no_discriminator(write_logs, tables, tmp_path):
    outcome, labels = mined(write_logs(**tables), tmp_path / "labels", perspectives="search_log")
    assert outcome["discriminator"] is None
    assert {row["source"] for row in labels.values()} == {"search_log", "shown_not_clicked", "ranked_not_shown"}
    assert labels["red lamp", "red-lamp"]["level"] == 4


def test_until_is_exclusive(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    # Users 0 to 2 searched before 2060 s; the reformulation of user 2 is at 2060 s itself.
    outcome, labels = mined(logs, tmp_path / "a", until="2024-05-31T00:34:20Z")
    queries = {query for query, _ in labels}
    assert "red phone" in queries
    assert "red phone please" not in queries
    assert outcome["query_level"]["reformulations"] == 2
    assert outcome["discriminator"]["latest_time"] == "2024-05-31T00:33:20+00:00"
    outcome, _ = mined(logs, tmp_path / "b", until="2024-05-31T00:34:20.000001")
    assert outcome["query_level"]["reformulations"] == 3


def test_what_happened_later_changes_nothing(write_logs, tables, at, tmp_path):
    before = mined(write_logs("one", **tables), tmp_path / "a", until="2024-05-31T01:00:00Z")[1]
    later = at(3600)
    changed = dict(tables)
    changed["searches"] = [
        row | ({"query": "nonsense", "user_id": "user-0", "time": later} if row["time"] >= later else {})
        for row in tables["searches"]
    ]
    late = {row["search_id"] for row in changed["searches"] if row["time"] >= later}
    changed["candidates"] = [
        row | ({"stage": "shown", "clicked": True} if row["search_id"] in late else {}) for row in tables["candidates"]
    ]
    changed["feed_views"] = [*tables["feed_views"], {"user_id": "user-0", "doc_id": "red-vase", "time": later}]
    assert mined(write_logs("two", **changed), tmp_path / "b", until="2024-05-31T01:00:00Z")[1] == before


def test_missing_tables_are_skipped_and_said(write_logs, tables, tmp_path):
    del tables["feed_views"], tables["knowledge_documents"]
    logs = write_logs(**tables)
    outcome, _ = mined(logs, tmp_path / "a", perspectives="system_level, search_log")
    assert outcome["skipped"] == {"system_level": "table feed_views is not in the logs"}
    outcome, _ = mined(logs, tmp_path / "b")
    assert set(outcome["skipped"]) == {"system_level", "knowledge_level"}


def test_without_clicks_and_judgements_the_search_log_is_mined_and_the_rest_said(write_logs, tables, tmp_path):
    tables["candidates"] = [{**row, "clicked": False} for row in tables["candidates"] if row["stage"] == "shown"]
    logs = write_logs(**tables)
    outcome, _ = mined(logs, tmp_path / "labels")
    assert set(outcome["skipped"]) == {"query_level", "system_level"}
    assert "nothing to fit a discriminator on" in outcome["skipped"]["query_level"]
    assert outcome["discriminator"] is None
    assert outcome["by_source"] == {"knowledge_level": 1, "shown_not_clicked": 30}
    with pytest.raises(InputError, match="nothing to fit a discriminator on"):
        mined(logs, tmp_path / "named", perspectives="search_log,system_level")


def test_a_click_with_nothing_to_set_against_it_leaves_the_search_log(write_logs, at, tmp_path):
    shown = {"search_id": "s1", "doc_id": "d1", "stage": "shown", "position": 1, "clicked": True}
    logs = write_logs(
        documents=[{"doc_id": "d1", "title": "Red shoe"}],
        searches=[search("s1", "u1", "red shoe", at(0))],
        candidates=[shown],
    )
    outcome, _ = mined(logs, tmp_path / "labels")
    assert "nothing to fit a discriminator on: 1 pairs" in outcome["skipped"]["query_level"]
    assert outcome["by_source"] == {"search_log": 1}


def test_documents_that_a_language_model_wrote_may_lie_elsewhere(write_logs, tables, tmp_path):
    docs = write_logs("docs", knowledge_documents=[{**tables["knowledge_documents"][0], "doc_id": "k2"}])
    (docs / "documents.parquet").unlink()
    logs = write_logs(**tables)
    options = {"perspectives": "search_log,knowledge_level", "knowledge_documents": str(docs)}
    _, labels = mined(logs, tmp_path / "a", **options)
    assert ("red lamp", "k2") in labels
    assert ("red lamp", "k1") not in labels
    inputs = read_manifest(tmp_path / "a")["inputs"]
    assert inputs["knowledge_documents"]["fingerprint"] == fingerprint(docs)
    del tables["knowledge_documents"]
    _, labels = mined(write_logs("without", **tables), tmp_path / "b", **options)
    assert ("red lamp", "k2") in labels


def judgement(query, doc_id, grade, split=None):
    return {"query": query, "doc_id": doc_id, "grade": grade, "split": split}


def test_judgements_as_labels(write_logs, tmp_path):
    logs = write_logs(
        documents=DOCUMENTS,
        judgements=[
            judgement("Red Lamp", "red-lamp", 3.0, "train"),
            judgement("red lamp", "blue-lamp", 1.99, "train"),
            judgement("red lamp", "red-vase", 0.0, "train"),
            judgement("red lamp", "unknown", 3.0, "train"),
            judgement("red chair", "red-chair", 3.0, "test"),
            judgement("red phone", "red-phone", 3.0, "dev"),
            judgement("red vase", "red-vase", 2.0),
        ],
    )
    outcome, labels = mined(logs, tmp_path / "labels", judgements_as_labels=True, grade_levels="1=3,2=4")
    assert {key: row["level"] for key, row in labels.items()} == {
        ("red lamp", "blue-lamp"): 3,
        ("red lamp", "red-lamp"): 4,
        ("red vase", "red-vase"): 4,
    }
    assert outcome["judgements"] == {"without_split": 1, "unknown_documents": 1, "below_grade_levels": 1}
    assert outcome["by_source"] == {"judgements": 3}


def test_a_discriminator_is_fitted_on_train_judgements_alone(write_logs, tables, tmp_path):
    graded = [
        judgement(f"red {thing}", f"{colour}-{thing}", grade, "train")
        for thing in THINGS
        for colour, grade in (("red", 2.0), ("blue", 1.0))
    ] + [judgement(f"red {thing}", f"red-{THINGS[i - 1]}", 0.0, "train") for i, thing in enumerate(THINGS)]
    hidden = [judgement("secret", f"red-{thing}", 0.0, "test") for thing in THINGS]
    shown = [judgement("secret", f"red-{thing}", 2.0, "test") for thing in THINGS]
    outcomes = []
    for name, test in (("one", hidden), ("two", shown)):
        logs = write_logs(name, **tables, judgements=graded + test)
        outcomes.append(mined(logs, tmp_path / f"labels-{name}"))
    assert outcomes[0][1] == outcomes[1][1]
    described = outcomes[0][0]["discriminator"]
    assert described["source"].startswith("judgements")
    assert described["populations"]["pool"] == 30
    assert described["pairs"] == sum(described["populations"].values())
    assert described["relevant_grade"] == 1.0
    assert described["latest_time"] is None


def test_clicks_alone_take_unclicked_documents_and_say_so(write_logs, tables, tmp_path):
    tables["candidates"] = [row for row in tables["candidates"] if row.get("clicked")]
    outcome, _ = mined(write_logs(**tables), tmp_path / "labels")
    described = outcome["discriminator"]
    assert "clicks only" in described["source"]
    # Two queries a thing, one click each; with each click, one document of BM25's top and one at random.
    assert (described["populations"]["pool"], described["populations"]["random"]) == (40, 20)


@pytest.mark.parametrize(
    ("text", "steps"),
    [("0=3,1=4", [(0.0, 3), (1.0, 4)]), ("2.33=4, 1=1", [(1.0, 1), (2.33, 4)]), ("1=5", [(1.0, 5)])],
)
def test_grade_levels(text, steps):
    assert parse_grade_levels(text) == steps


@pytest.mark.parametrize("text", ["", "4", "a=1", "1=9", "-1=3", "1=4,2=3", "1=4,1=5", "1=4,2=4", "nan=3", "inf=2"])
def test_wrong_grade_levels_are_refused(text):
    with pytest.raises(InputError, match="--grade-levels"):
        parse_grade_levels(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_supporters": 0}, "--min-supporters 0 must be greater than 0"),
        ({"day": "2024-05-31"}, "--day and --state go together"),
        ({"state": "state"}, "--day and --state go together"),
        ({"forget_before": "2024-05-31"}, "--forget-before goes with --day"),
        ({"day": "2024-05-31", "state": "s", "until": "2024-06-01"}, "--until and --day exclude each other"),
        ({"knowledge_documents": "nowhere"}, "nowhere"),
        ({"perspectives": "search_log,feed"}, "'feed' is none of"),
        ({"until": "yesterday"}, "--until"),
        ({"until": "2024-05-31"}, "no search"),
        ({"alpha": 1.5}, "--alpha"),
        ({"window_seconds": 0}, "--window-seconds"),
        ({"window_seconds": 10**13}, "--window-seconds .* at most"),
        ({"max_later_searches": 0}, "--max-later-searches"),
        ({"max_searches_per_hour": 0}, "--max-searches-per-hour"),
        ({"max_feed_documents": 10**20}, "--max-feed-documents .* at most"),
        ({"seed": -1}, "--seed -1 must not be negative"),
        ({"perspectives": ","}, "names none of"),
        ({"memory_limit": "nonsense"}, "--memory-limit 'nonsense' is no size"),
        ({"until": "0001-01-01T00:00+14:00"}, "--until .* is not an ISO 8601 time"),
        ({"levels": "query_level=7"}, "--levels"),
        ({"judgements_as_labels": True}, "go together"),
        ({"grade_levels": "0=3"}, "go together"),
        ({"judgements_as_labels": True, "grade_levels": "0=3"}, "table judgements is not in"),
        ({"discriminator": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_arguments_name_themselves_and_write_nothing(write_logs, tables, tmp_path, arguments, message):
    logs = write_logs(**tables)
    with pytest.raises(InputError, match=message):
        mine(mine_arguments(logs=str(logs), output=str(tmp_path / "labels"), **arguments))
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}


def test_too_little_memory_is_a_named_failure(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    with pytest.raises(NamedFailure, match="--memory-limit"):
        mine(mine_arguments(logs=str(logs), output=str(tmp_path / "labels"), memory_limit="1KB"))
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}


def test_nothing_to_mine_says_what_is_missing(write_logs, tmp_path):
    logs = write_logs(documents=DOCUMENTS, judgements=[judgement("red lamp", "red-lamp", 1.0)])
    with pytest.raises(InputError, match="--judgements-as-labels"):
        mine(mine_arguments(logs=str(logs), output=str(tmp_path / "labels")))


def judged(doc_id, split):
    return {"query": "red lamp", "doc_id": doc_id, "grade": 1.0, "split": split}


@pytest.mark.parametrize("with_log", [False, True])
def test_judgements_of_no_known_document_are_refused_for_that_reason(write_logs, tables, tmp_path, with_log):
    judgements = [judged("lost-1", "train"), judged("lost-2", "test")]
    logs = write_logs(**(tables if with_log else {"documents": DOCUMENTS}), judgements=judgements)
    message = r"none of its 2 rows names a document of the table documents; doc_id is 'lost-1', 'lost-2', and documents"
    with pytest.raises(InputError, match=message):
        mined(logs, tmp_path / "labels", judgements_as_labels=True, grade_levels="0=3,1=4")
    with pytest.raises(InputError, match=message):
        hold_out(hold_out_arguments(logs=str(logs), output=str(tmp_path / "split"), by="split"))
    assert not (tmp_path / "split").exists()


def test_training_judgements_of_no_known_document_are_no_labels(write_logs, tmp_path):
    judgements = [judged("lost-1", "train"), judged("lost-2", None), judged("red-lamp", "test")]
    logs = write_logs(documents=DOCUMENTS, judgements=judgements)
    with pytest.raises(InputError, match="none of its split train: 2 rows names a document"):
        mined(logs, tmp_path / "labels", judgements_as_labels=True, grade_levels="0=3,1=4")


def test_the_limits_of_shared_ids_are_counted(write_logs, tables, tmp_path, at):
    """A robot with a search every second of a minute, each with a click on a lamp that it did not ask for."""
    robot = [search(f"r{i}", "robot", f"chair {i}", at(20_000 + i)) for i in range(60)]
    clicks = [{"search_id": row["search_id"], "doc_id": "red-lamp", "stage": "shown", "clicked": True} for row in robot]
    logs = write_logs(
        **tables
        | {"searches": tables["searches"] + robot, "candidates": tables["candidates"] + clicks}
        | {"feed_views": [*tables["feed_views"], {"user_id": "robot", "doc_id": "blue-lamp", "time": at(20_000)}]}
    )
    common = {"alpha": 0.0, "overwrite": True, "perspectives": "search_log,query_level,system_level"}
    outcome, _ = mined(logs, tmp_path / "labels", **common)
    assert outcome["query_level"]["reformulations"] == 10 + 60 * 59 // 2
    assert "later_searches_left_out" not in outcome["query_level"]
    outcome, _ = mined(logs, tmp_path / "labels", max_later_searches=10, **common)
    assert outcome["query_level"]["reformulations"] == 10 + 50 * 10 + 10 * 9 // 2
    assert outcome["query_level"]["later_searches_left_out"] == 50 * 49 // 2
    assert outcome["query_level"]["users_with_searches_left_out"] == 1
    outcome, labels = mined(logs, tmp_path / "labels", max_searches_per_hour=59, **common)
    set_aside = {"users_set_aside": 1, "searches_set_aside": 60}
    assert outcome["query_level"].items() >= {**set_aside, "reformulations": 10}.items()
    assert outcome["system_level"].items() >= set_aside.items()
    assert labels["chair 7", "red-lamp"]["source"] == "search_log"
    outcome, _ = mined(logs, tmp_path / "labels", max_searches_per_hour=60, **common)
    assert outcome["query_level"]["users_set_aside"] == 0


def test_an_output_is_not_overwritten_unasked(write_logs, tables, tmp_path):
    logs = write_logs(**tables)
    mined(logs, tmp_path / "labels", perspectives="search_log")
    with pytest.raises(InputError, match="--overwrite"):
        mined(logs, tmp_path / "labels", perspectives="search_log")


BEST_BUY = SHARED_DATA / "bestbuy_xbox"


@pytest.mark.slow
@pytest.mark.skipif(not BEST_BUY.is_dir(), reason="the Best Buy clicks are not beside the repository")
def test_best_buy_has_the_reformulations_that_its_log_holds(tmp_path):
    from data.convert import ConvertArguments, convert

    convert(ConvertArguments(source="bestbuy", input=str(BEST_BUY), output=str(tmp_path / "logs")))
    outcome, _ = mined(tmp_path / "logs", tmp_path / "labels")
    assert 180 <= outcome["query_level"]["candidates_of_any_similarity"] <= 200
    assert 0 < outcome["query_level"]["passing"] <= outcome["query_level"]["candidates"]
