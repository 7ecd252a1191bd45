"""data.mine --day: days that are added, replaced and forgotten give the labels of one run over all of them."""

import copy
import dataclasses
import datetime
import json
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.artifacts import read_manifest
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.errors import InputError
from crops_jax.lexical import CorpusStatistics
from data.inspect import describe
from data.mine import MineArguments, mine
from data.mining_state import open_state
from data.tables import SCHEMAS, write_table
from data.theta import Fitted, Theta, save_theta

DAYS = ["2024-02-28", "2024-02-29", "2024-03-01"]
WORDS = ["red shoe", "red shoes", "blue shoe", "Red  Shoes"]
USERS = ["user-ann", "user-bob", "user-cat"]
DOCUMENTS = [{"doc_id": f"d{i}", "title": f"{'red' if i % 2 else 'blue'} shoe {i}"} for i in range(5)]
MIDNIGHTS = [datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC) for day in DAYS]
STAGES = ["shown", "shown", "ranked_not_shown", "filtered_before_ranking"]


SECONDS = [-2000, -1800, -91, -90, -60, -30, -1, -1e-6, 0, 1, 29, 30, 60, 89.5, 90, 1799, 5000]


def logs_of(random, number):
    """Tables of some searches and feed views around the midnights of the days, so that the windows reach over them."""
    end = MIDNIGHTS[-1] + datetime.timedelta(days=1)

    def moment():
        time = random.choice([*MIDNIGHTS, end]) + datetime.timedelta(seconds=random.choice(SECONDS))
        return min(max(time, MIDNIGHTS[0]), end - datetime.timedelta(microseconds=1))

    def candidate(search, doc):
        return {
            "search_id": search["search_id"],
            "doc_id": f"d{doc}",
            "stage": random.choice(STAGES),
            "clicked": random.choice([None, False, True]),
            "watch_seconds": random.choice([None, 5.0, 30.0]),
        }

    searches = [
        {"search_id": f"s{i}", "user_id": random.choice(USERS), "query": random.choice(WORDS), "time": moment()}
        for i in range(number)
    ]
    return {
        "searches": searches,
        "candidates": [
            candidate(search, doc) for search in searches for doc in random.sample(range(5), random.randint(1, 3))
        ],
        "feed_views": [
            {"user_id": random.choice(USERS), "doc_id": f"d{random.randrange(5)}", "time": moment()}
            for _ in range(number // 2)
        ],
    }


def write_whole(directory, tables):
    """One file a table."""
    directory.mkdir(parents=True)
    for name, rows in {"documents": DOCUMENTS, **tables}.items():
        write_table(directory, name, pa.Table.from_pylist(rows, SCHEMAS[name].arrow))
    return directory


def write_partitioned(directory, tables):
    """Folders day=YYYY-MM-DD: candidates lie with their search. Every day has its folders, if without rows."""
    directory.mkdir(parents=True)
    write_table(directory, "documents", pa.Table.from_pylist(DOCUMENTS, SCHEMAS["documents"].arrow))
    day_of = {row["search_id"]: str(row["time"].date()) for row in tables["searches"]}
    for name, rows in tables.items():
        schema = pa.schema([(column.name, column.arrow_type) for column in SCHEMAS[name].columns])
        for day in DAYS:
            of_day = [
                row
                for row in rows
                if (day_of[row["search_id"]] if name == "candidates" else str(row["time"].date())) == day
            ]
            folder = directory / name / f"day={day}"
            folder.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist(of_day, schema), folder / "part-0.parquet")
    return directory


@pytest.fixture(scope="module")
def discriminator(tmp_path_factory):
    """One that knows red from blue, fitted apart from the logs that are mined."""
    texts = [document["title"] for document in DOCUMENTS]
    queries = [colour + " shoe" for colour in ("red", "blue") for _ in texts]
    targets = [float(text.startswith(query.split()[0])) for query, text in zip(queries, texts * 2, strict=True)]
    fitted = LexicalDiscriminator.fit(queries, texts * 2, targets, corpus=CorpusStatistics.of(texts))
    about = Fitted(
        kind="lexical",
        source="hand-made",
        pairs=len(queries),
        ece_before=0.0,
        ece_after=0.0,
        calibrated_on="nothing",
        latest_time=None,
        unsplit_judgements=0,
    )
    folder = tmp_path_factory.mktemp("theta") / "discriminator"
    folder.mkdir()
    save_theta(Theta(fitted, dataclasses.asdict(about)), folder)
    return folder


def one_run(logs, output, **arguments):
    mine(MineArguments(logs=str(logs), output=str(output), **arguments))
    return contents(output)


def add(day, logs, root, **arguments):
    return mine(
        MineArguments(logs=str(logs), output=str(root / "labels"), day=day, state=str(root / "state"), **arguments)
    )


def contents(labels):
    return pq.read_table(labels / "labels.parquet").to_pylist(), json.loads((labels / "alpha_sweep.json").read_text())


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


def on_29_february(seconds):
    return MIDNIGHTS[1] + datetime.timedelta(seconds=seconds)


def search(search_id, user, query, seconds):
    return {"search_id": search_id, "user_id": user, "query": query, "time": on_29_february(seconds)}


def view(doc, seconds):
    return {"user_id": "user-ann", "doc_id": doc, "time": on_29_february(seconds)}


def click(search_id, doc, clicked=True):
    return {"search_id": search_id, "doc_id": doc, "stage": "shown", "clicked": clicked}


OVER_MIDNIGHT = {
    "searches": [
        search("s0", "user-bob", "blue shoe", -12 * 3600),
        search("s1", "user-ann", "red shoe", -60),
        search("s2", "user-ann", "red shoes", 29),
    ],
    "candidates": [click("s0", "d2"), click("s1", "d4", clicked=False), click("s2", "d1")],
    "feed_views": [view("d3", -1800), view("d1", 1)],
}
"""User ann asks for "red shoe" 60 s before the midnight to 29 February and for "red shoes" 29 s after, where she clicks
d1. The feed showed her d3 half an hour before midnight and d1 a second after. Bob asks on 28 February alone, at noon,
and clicks d2."""


@pytest.fixture
def over_midnight():
    return copy.deepcopy(OVER_MIDNIGHT)


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
    days = write_partitioned(tmp_path / "days", over_midnight)
    options = {"discriminator": str(discriminator), "alpha": 0.0}
    scored = [add(day, days, tmp_path, **options)["pairs_scored"] for day in (DAYS[0], DAYS[1], DAYS[0], DAYS[1])]
    assert scored == [1, 2, 0, 0]
    assert len(asked) == len(set(asked)) == 3


def test_the_state_is_private_and_knows_users_by_keyed_hashes(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    for day in DAYS[:2]:
        add(day, days, tmp_path, discriminator=str(discriminator))
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "key").stat().st_mode) == 0o600
    of_day = {day: pq.read_table(state / "days" / f"{day}.parquet") for day in DAYS[:2]}
    users = {day: set(table["user"].to_pylist()) for day, table in of_day.items()}
    assert (len(users[DAYS[0]]), len(users[DAYS[1]])) == (2, 1)
    assert users[DAYS[1]] < users[DAYS[0]]
    # Another state has another key, and its hashes cannot be joined with these.
    mine(
        MineArguments(
            logs=str(days),
            output=str(tmp_path / "other"),
            day=DAYS[0],
            state=str(tmp_path / "other-state"),
            discriminator=str(discriminator),
        )
    )
    other = pq.read_table(tmp_path / "other-state" / "days" / f"{DAYS[0]}.parquet")["user"].to_pylist()
    assert not set(other) & users[DAYS[0]]


@pytest.fixture(scope="module")
def one_day(tmp_path_factory, discriminator):
    """A state of one day, logs of three, another discriminator, and labels and tables in places of their own."""
    root = tmp_path_factory.mktemp("one-day")
    days = write_partitioned(root / "days", OVER_MIDNIGHT)
    shutil.copytree(discriminator, root / "other")
    (root / "other" / "notes.txt").write_text("another")
    add(DAYS[0], days, root, discriminator=str(discriminator), alpha=0.3)
    shutil.copytree(root / "labels", root / "labels2")
    shutil.copytree(days, root / "days2")
    return root


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"alpha": 0.5}, "begun with alpha 0.3 and not 0.5"),
        ({"min_supporters": 2}, "begun with min-supporters 1 and not 2"),
        ({"perspectives": "search_log"}, "begun with discriminator .* and not none, perspectives"),
        ({"discriminator": "other"}, "begun with discriminator"),
        ({"forget_before": "2024-03-02"}, "--forget-before 2024-03-02 is after --day"),
        ({"day": "2024-2-29"}, "--day '2024-2-29' is no day"),
        ({"day": "2024-03-05"}, "no folder day=2024-03-05"),
        ({"state": "days/state"}, "--state .* and --logs .* overlap"),
        ({"output": "state/labels"}, "overlap"),
        ({"state": "days2", "logs": "days"}, "holds files that data.mine did not write"),
        ({"state": "labels2", "logs": "days"}, "holds labels, not the state"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    tmp_path, discriminator, one_day, monkeypatch, changed, message
):
    root = tmp_path / "root"
    shutil.copytree(one_day, root)
    monkeypatch.chdir(root)
    options = {"discriminator": str(discriminator), "alpha": 0.3, "logs": "days"}
    before = everything(root)
    with pytest.raises(InputError, match=message):
        mine(MineArguments(**{**options, "output": "labels", "state": "state", "day": DAYS[1], **changed}))
    assert everything(root) == before


def everything(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_folder_that_is_no_day_is_refused(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    (days / "searches" / f"day={DAYS[0]}").rename(days / "searches" / "day=__HIVE_DEFAULT_PARTITION__")
    with pytest.raises(
        InputError, match=r"table searches: folder day=__HIVE_DEFAULT_PARTITION__: the day .* is no day"
    ):
        add(DAYS[1], days, tmp_path, discriminator=str(discriminator))
    # Without --day such folders are folders like any other.
    one_run(days, tmp_path / "whole", discriminator=str(discriminator))


def test_rows_in_the_folder_of_another_day_are_refused(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    (days / "searches" / f"day={DAYS[0]}" / "part-0.parquet").rename(
        days / "searches" / f"day={DAYS[1]}" / "part-1.parquet"
    )
    with pytest.raises(InputError, match=r"part-1.parquet, row \d .*is of another UTC day than its folder \(2 such"):
        add(DAYS[1], days, tmp_path, discriminator=str(discriminator))


def test_a_lost_key_is_refused(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    add(DAYS[0], days, tmp_path, discriminator=str(discriminator))
    (tmp_path / "state" / "key").unlink()
    with pytest.raises(InputError, match="key is missing"):
        add(DAYS[1], days, tmp_path, discriminator=str(discriminator))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: (state / "days" / f"{DAYS[0]}.parquet").write_bytes(b"PAR1"), r"02-28.parquet is damaged"),
        (lambda state: (state / "scores" / "000001.parquet").write_bytes(b"PAR1"), r"000001.parquet is damaged"),
        (lambda state: (state / "scores" / "000001.parquet").unlink(), "the scores of [1-9][0-9]* pairs .* missing"),
        (lambda state: (state / "days" / "2024-13-99.parquet").write_bytes(b""), "its name '2024-13-99' is no day"),
        (lambda state: rename_key(state / "manifest.json", "state", "other"), "manifest.state must be text"),
    ],
)
def test_a_damaged_state_is_named(tmp_path, discriminator, damage, message):
    tables = logs_of(Random(0), 40)
    days = write_partitioned(tmp_path / "days", tables)
    add(DAYS[0], days, tmp_path, discriminator=str(discriminator), beta=-1.0)
    labels = contents(tmp_path / "labels")
    damage(tmp_path / "state")
    with pytest.raises(InputError, match=message):
        add(DAYS[1], days, tmp_path, discriminator=str(discriminator), beta=-1.0)
    assert contents(tmp_path / "labels") == labels


def rename_key(file, old, new):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({new if name == old else name: value for name, value in content.items()}))


def test_a_state_can_be_inspected(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    add(DAYS[1], days, tmp_path, discriminator=str(discriminator))
    content = describe(tmp_path / "state")
    assert content["kind"] == "mining_state"
    assert list(content["days"]) == [DAYS[1]]
    assert content["days"][DAYS[1]] > 0
    assert content["mined_with"]["alpha"] == 0.6
    assert not any(user in json.dumps(content) for user in USERS)
    (tmp_path / "state" / "days" / f"{DAYS[1]}.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"02-29.parquet, after row 0: cannot be read"):
        describe(tmp_path / "state")


def test_two_processes_do_not_work_in_one_state(tmp_path):
    with open_state(tmp_path / "state"), pytest.raises(InputError, match="another process works in it"):
        with open_state(tmp_path / "state"):
            raise AssertionError


def test_a_discriminator_fitted_on_the_first_day_decides_on_the_others(tmp_path, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    first = add(DAYS[0], days, tmp_path)["discriminator"]
    assert first["kind"] == "lexical"
    assert add(DAYS[1], days, tmp_path)["discriminator"] == first


KILLED = """
import os, signal, sys
from data.mine import MineArguments, mine
from data.mining_state import open_state

left = int(sys.argv[1])
plain = os.replace

def replace(*names):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    plain(*names)

os.replace = replace
logs, output, day, state, discriminator = sys.argv[2:]
mine(MineArguments(logs=logs, output=output, day=day, state=state, discriminator=discriminator, alpha=0.0))
"""


def killed_at(renames, root, days, discriminator):
    """Runs DAYS[1] in a process of its own that is killed instead of its rename number `renames`; its exit status."""
    names = [days, root / "labels", DAYS[1], root / "state", discriminator]
    command = [sys.executable, "-c", KILLED, str(renames), *map(str, names)]
    return subprocess.run(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL).returncode


def check_killed(tmp_path, renames, days, discriminator, before, after):
    root = tmp_path / f"killed-{renames}"
    shutil.copytree(before, root)
    status = killed_at(renames, root, days, discriminator)
    for name in (DAYS[0], DAYS[1]):
        old, new = (place / "state" / "days" / f"{name}.parquet" for place in (before, after))
        found = root / "state" / "days" / f"{name}.parquet"
        assert found.read_bytes() in {file.read_bytes() for file in (old, new)}
    # Between the two renames of a directory that is replaced there is none.
    if (root / "labels").exists():
        assert contents(root / "labels") in (contents(before / "labels"), contents(after / "labels"))
    add(DAYS[1], days, root, discriminator=str(discriminator), alpha=0.0)
    assert contents(root / "labels") == contents(after / "labels")
    assert not [file for file in (root / "state").rglob("*") if file.name.startswith(".")]
    return status


@pytest.fixture
def rerun_day(tmp_path, discriminator, over_midnight):
    """Two days mined from one log, and the later one mined again from another log, undisturbed."""
    options = {"discriminator": str(discriminator), "alpha": 0.0}
    first = write_partitioned(tmp_path / "first", over_midnight)
    for day in DAYS[:2]:
        add(day, first, tmp_path / "before", **options)
    over_midnight["feed_views"].append({**over_midnight["feed_views"][-1], "doc_id": "d4"})
    days = write_partitioned(tmp_path / "days", over_midnight)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    add(DAYS[1], days, tmp_path / "after", **options)
    assert contents(tmp_path / "before" / "labels") != contents(tmp_path / "after" / "labels")
    return days, tmp_path / "before", tmp_path / "after"


def test_a_run_that_is_killed_leaves_nothing_half(tmp_path, discriminator, rerun_day):
    # The first rename is of the scores, the second of the day.
    assert check_killed(tmp_path, 1, rerun_day[0], discriminator, *rerun_day[1:]) == -signal.SIGKILL


@pytest.mark.slow
def test_wherever_it_is_killed(tmp_path, discriminator, rerun_day):
    statuses = []
    while not statuses or statuses[-1] != 0:
        statuses.append(check_killed(tmp_path, len(statuses), rerun_day[0], discriminator, *rerun_day[1:]))
    assert len(statuses) > 5
    assert set(statuses[:-1]) == {-signal.SIGKILL}


@pytest.mark.slow
def test_a_first_run_that_was_killed_pins_nothing(tmp_path, discriminator, over_midnight):
    days = write_partitioned(tmp_path / "days", over_midnight)
    # The renames are of the key, the scores, the manifest, and then the day.
    assert killed_at(3, tmp_path, days, discriminator) == -signal.SIGKILL
    assert (tmp_path / "state" / "manifest.json").exists()
    add(DAYS[0], days, tmp_path, discriminator=str(discriminator), alpha=0.5)
