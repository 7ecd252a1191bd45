"""The state that days are added to: private, inspected, and refused where it does not fit or is damaged."""

import json
import shutil
import stat
from random import Random

import pyarrow.parquet as pq
import pytest

from crops_jax.errors import InputError
from data.inspect import describe
from data.mine import mine
from data.mining.state import open_state
from tests.data.mining.mined_days.days import (
    DAYS,
    OVER_MIDNIGHT,
    USERS,
    add,
    contents,
    logs_of,
    one_run,
    write_partitioned,
)
from tests.mining_arguments import mine_arguments


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
        mine_arguments(
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
        mine(mine_arguments(**{**options, "output": "labels", "state": "state", "day": DAYS[1], **changed}))
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
