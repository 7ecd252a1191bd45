"""launch.train_discriminator: from log tables to a discriminator that hold_out and mine accept."""

import dataclasses
import datetime
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pyarrow as pa
import pytest

from crops_jax import artifacts, discriminator
from crops_jax.devices import process_memory
from crops_jax.errors import InputError, Interrupted
from crops_jax.runs.log import TIMING_FIELDS, read_metrics
from data.hold_out import HoldOutArguments, hold_out
from data.mine import MineArguments, mine
from data.mining.parameters import MiningParameters
from data.mining.relevance.theta import open_theta
from data.tables import SCHEMAS, open_logs, write_table
from launch.status import StatusArguments, status
from launch.train_discriminator import TrainDiscriminatorArguments, _warn, train_discriminator
from tests.model_folders import write_bert
from tests.paths import ROOT

PATIENCE_SECONDS = 300
T0 = datetime.datetime(2024, 5, 30, tzinfo=datetime.UTC)
SMALL = {
    "layers": 1,
    "width": 16,
    "heads": 2,
    "feed_forward_width": 32,
    "vocabulary_size": 80,
    "max_tokens": 8,
    "pairs_per_batch": 16,
    "steps": 12,
    "learning_rate": 1e-2,
    "dropout": 0.0,
    "log_every_steps": 3,
    "checkpoint_every_steps": 4,
}
QUERIES = [f"{chr(ord('a') + i)} thing" for i in range(26)]


def written(folder, **tables):
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        schema = pa.schema([(column.name, column.arrow_type) for column in SCHEMAS[name].columns])
        write_table(folder, name, pa.Table.from_pylist(rows, schema))
    return folder


def write_judged(folder):
    """Red documents answer any query, blue ones do not; half of the queries are split test and say the contrary."""
    documents = [{"doc_id": f"d{i}", "title": f"{('red', 'blue')[i % 2]} {i}"} for i in range(8)]
    judgements = [
        {"query": query, "doc_id": f"d{i}", "grade": 2.0 * ((i + (number % 2)) % 2 == 0)}
        | {"split": ("train", "test")[number % 2]}
        for number, query in enumerate([*QUERIES, *(f"{query} more" for query in QUERIES)])
        for i in range(8)
    ]
    return written(folder, documents=documents, judgements=judgements)


def write_log(folder):
    """Two days of one search a minute by one of 13 users; what is red is clicked; each query is asked again longer."""
    documents = [{"doc_id": f"d{i}", "title": f"{('red', 'blue')[i % 2]} thing {i}"} for i in range(8)]
    searches, candidates, views = [], [], []
    for number in range(104):
        query = QUERIES[number // 2 % 26] + (" x" if number % 2 else "")
        at = T0 + datetime.timedelta(hours=number // 52 * 24, seconds=60 * number)
        user = f"u{number // 2 % 13}"
        searches.append({"search_id": f"s{number}", "user_id": user, "query": query, "time": at})
        for i in range(4):
            doc_id = f"d{(number + i) % 8}"
            shown = {"search_id": f"s{number}", "doc_id": doc_id, "stage": "shown", "position": i + 1}
            candidates.append({**shown, "clicked": (number + i) % 2 == 0})
        views.append({"user_id": user, "doc_id": f"d{number * 3 % 8}", "time": at})
    return written(folder, documents=documents, searches=searches, candidates=candidates, feed_views=views)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Runs of one process share compiled programs, and leave its allocator alone."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", cache)
        patch.setattr(process_memory, "keep_freed_memory", lambda: True)
        jax.config.update("jax_compilation_cache_dir", cache)
        yield


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    return write_judged(tmp_path_factory.mktemp("judged") / "logs")


def arguments(logs, run, **changed):
    return TrainDiscriminatorArguments(logs=str(logs), output=str(run), **(SMALL | changed))


@pytest.fixture(scope="module")
def trained(judged, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    return run, train_discriminator(arguments(judged, run))


def test_judgements_of_split_train_are_learnt_and_no_others(judged, trained):
    run, outcome = trained
    assert outcome["source"] == "judgements of split train"
    assert outcome["pairs"] == 26 * 8
    assert outcome["calibrated_on"] == "held-out queries"
    assert outcome["latest_time"] is None
    assert outcome["auc"]["cross_encoder"]["value"] > 0.9
    assert {"low", "high", "queries"} <= outcome["auc"]["difference"].keys()
    theta = open_theta(run)
    assert theta.fitted["kind"] == "cross_encoder"
    scores = theta.discriminator.score(["b thing", "b thing"], ["red 0", "blue 1"])
    assert scores[0] > scores[1]
    manifest = artifacts.read_manifest(run)
    assert (manifest["program"], manifest["kind"]) == ("launch.train_discriminator", "discriminator")
    assert manifest["inputs"]["logs"]["fingerprint"] == artifacts.fingerprint(judged)
    config = json.loads((run / "config.json").read_text())
    assert config["encoder"]["width"] == 16
    assert config["optimizer"]["learning_rate"] == 1e-2
    assert [line["step"] for line in read_metrics(run)] == [3, 6, 9, 12]
    where = status(StatusArguments(run=str(run)))
    assert (where["step"], where["steps"], where["finished"], where["seconds_left"]) == (12, 12, True, 0)


def test_a_finished_run_answers_again_and_another_one_is_refused(judged, trained, tmp_path):
    run, outcome = trained
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    assert train_discriminator(arguments(judged, run, checkpoint_every_steps=7)) == outcome
    assert {file: file.stat().st_mtime_ns for file in before} == before
    with pytest.raises(InputError, match=r"made from other things \(--learning-rate 0.01, now 0.02\)"):
        train_discriminator(arguments(judged, run, learning_rate=0.02))
    with pytest.raises(InputError, match=r"made from other things \(--logs has changed\)"):
        train_discriminator(arguments(write_log(tmp_path / "logs"), run))
    with pytest.raises(
        InputError,
        match=r"was written by data\.mine and its kind is labels, not discriminator, .*choose another output",
    ):
        train_discriminator(arguments(judged, judged_copy(tmp_path)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match=r"holds other files and no manifest\.json; choose another output"):
        train_discriminator(arguments(judged, tmp_path / "mine"))


def judged_copy(tmp_path):
    """A directory of another program."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs={})
    artifacts.write_manifest(folder, manifest)
    return folder


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_tokens": 4}, "max_tokens must be at least 8"),
        ({"heads": 3}, "width must be a multiple of heads"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"weights": "/nowhere"}, "/nowhere is no folder"),
        ({"tokenizer": "/nowhere"}, "no such tokenizer folder"),
        ({"until": "yesterday"}, "--until"),
        ({"pairs_per_batch": 12}, "--pairs-per-batch 12 is not a multiple"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(judged, tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        train_discriminator(arguments(judged, tmp_path / "run", **changed))
    assert not (tmp_path / "run").exists()


def test_an_outcome_whose_random_pairs_pass_is_warned_of(capsys):
    """Alpha is .6 by default, and up to 2 % of random pairs may pass it."""
    for passing, warned in (({"0.5": 0.5, "0.6": 0.02}, False), ({"0.6": 0.25, "0.7": 0.0}, True), (None, False)):
        _warn({"random_pairs_passing": passing})
        assert ("passes 25.0% of random query-document pairs at alpha 0.6" in capsys.readouterr().err) == warned


def test_nothing_to_learn_from_is_said_and_leaves_nothing(tmp_path):
    one = {"query": "a", "doc_id": "d0", "grade": 1.0}
    logs = written(tmp_path / "logs", documents=[{"doc_id": "d0", "title": "t"}], judgements=[one])
    with pytest.raises(InputError, match="there is nothing to fit a discriminator on"):
        train_discriminator(arguments(logs, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_pairs_of_one_target_alone_are_refused_before_training_and_leave_nothing(tmp_path):
    """A click on the only document has no pair beside it that does not answer the query."""
    logs = written(
        tmp_path / "logs",
        documents=[{"doc_id": "d0", "title": "a red shoe"}],
        searches=[{"search_id": "s0", "user_id": "u", "query": "red", "time": T0}],
        candidates=[{"search_id": "s0", "doc_id": "d0", "stage": "shown", "position": 1, "clicked": True}],
    )
    with pytest.raises(InputError, match="there is nothing to fit a discriminator on"):
        train_discriminator(arguments(logs, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_hold_out_train_hold_out_again_and_mine(tmp_path):
    """The chain of launch.pipeline, with clicks; whatever read past the held-out time is refused."""
    logs, start = write_log(tmp_path / "logs"), (T0 + datetime.timedelta(days=1)).isoformat()
    held_out = HoldOutArguments(logs=str(logs), from_=start, output=str(tmp_path / "split"))
    hold_out(held_out)
    run, late = tmp_path / "run", tmp_path / "late"
    outcome = train_discriminator(arguments(tmp_path / "split", run))
    assert outcome["source"] == "clicked and shown-not-clicked documents, as many of each"
    assert outcome["latest_time"] < start
    named = dataclasses.replace(held_out, discriminator=str(run), output=str(tmp_path / "again"))
    assert hold_out(named)["discriminator"]["kind"] == "cross_encoder"
    alike = MiningParameters(beta=0.1)
    labels = mine(MineArguments(logs=str(tmp_path / "again"), output=str(tmp_path / "labels"), parameters=alike))
    assert labels["discriminator"]["kind"] == "cross_encoder"
    assert labels["discriminator"]["from"] == "LOGS/discriminator"
    assert labels["system_level"]["candidates"] > 0
    assert not (tmp_path / "labels.scores").exists()
    described = open_logs(tmp_path / "again")
    assert discriminator.load(described.path / "discriminator").fingerprint == discriminator.load(run).fingerprint

    train_discriminator(arguments(logs, late))
    with pytest.raises(InputError, match=r"read searches up to .* not before --from"):
        hold_out(dataclasses.replace(named, discriminator=str(late), output=str(tmp_path / "refused")))
    with pytest.raises(InputError, match=r"read searches up to .* not before --until"):
        mine(MineArguments(logs=str(logs), output=str(tmp_path / "no"), discriminator=str(late), until=start))
    early = train_discriminator(arguments(logs, tmp_path / "early", until=start))
    assert early["latest_time"] == outcome["latest_time"]
    grouped = HoldOutArguments(logs=str(logs), fraction=0.3, by="group", output=str(tmp_path / "groups"))
    with pytest.raises(InputError, match="was not fitted on the training part of this hold-out"):
        hold_out(dataclasses.replace(grouped, discriminator=str(run)))


def flags(logs, run, **changed):
    """The arguments of a command line, which are those of `arguments`."""
    named = {"logs": logs, "output": run} | SMALL | changed
    return [part for name, value in named.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def start(logs, run, *, cache, steps=40):
    changed = {"steps": steps, "log_every_steps": 1, "checkpoint_every_steps": 3, "dropout": 0.1}
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
    command = [sys.executable, "-m", "launch.train_discriminator", *flags(logs, run, **changed)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


@pytest.mark.slow
def test_killed_terminated_and_resumed_equals_never_stopped(judged, tmp_path):
    runs = {}
    for name, numbers in (("whole", []), ("stopped", [signal.SIGKILL, signal.SIGTERM])):
        run = runs[name] = tmp_path / name
        for number in numbers:
            process = start(judged, run, cache=tmp_path / "cache")
            before, deadline = len(read_metrics(run)), time.monotonic() + PATIENCE_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                if len(read_metrics(run)) >= before + 5:
                    break
                time.sleep(0.002)
            process.send_signal(number)
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)
            assert process.returncode in {-number, Interrupted.status}, errors
        process = start(judged, run, cache=tmp_path / "cache")
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, errors
        assert json.loads(output)["run"] == str(run)
    one, other = runs.values()
    assert (one / "cross_encoder.safetensors").read_bytes() == (other / "cross_encoder.safetensors").read_bytes()
    assert (one / "discriminator.json").read_bytes() == (other / "discriminator.json").read_bytes()
    untimed = [
        [{name: line[name] for name in line if name not in TIMING_FIELDS} for line in read_metrics(run)]
        for run in (one, other)
    ]
    assert untimed[0] == untimed[1]
    assert len(untimed[0]) == 40


@pytest.mark.slow
def test_a_cross_encoder_starts_from_the_weights_of_a_folder(judged, tmp_path):
    folder = write_bert(tmp_path / "bert", layers=1)
    outcome = train_discriminator(
        arguments(judged, tmp_path / "run", weights=str(folder), steps=1, checkpoint_every_steps=1)
    )
    assert outcome["pairs"] == 26 * 8
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["encoder"]["width"] == 30
    assert np.isfinite(discriminator.load(tmp_path / "run").score(["red"], ["blue"])).all()
