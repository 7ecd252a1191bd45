"""The road as a list of commands: what they are, and when a WORK is refused."""

import shlex
from pathlib import Path

import pytest

from crops_jax.errors import InputError, Interrupted
from crops_jax.program import chain, load_config
from crops_jax.program.chain import Chain
from launch import pipeline
from tests.model_folders import write_bert, write_tokenizer


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Runs the pipeline with its steps recorded instead of run."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "documents.parquet").write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    commands = []

    def record(self, step):
        commands.append(shlex.join(step.command))
        return {"report": str(step.output)}

    monkeypatch.setattr(Chain, "run", record)

    def run(config="tiny_cpu", sections=None, **changes):
        commands.clear()
        config = load_config(config).replace(**(sections or {}))
        given = {"logs": "logs", "output": "work", "from_time": "2026-01-05", "config": config} | changes
        outcome = pipeline.run_pipeline(pipeline.PipelineArguments(**given))
        return outcome, list(commands)

    return run


def test_every_step_is_a_command_that_can_be_run_by_hand(asked):
    outcome, commands = asked(arms="search_log")
    assert outcome == {"report": "work/report.html", "work": "work"}
    assert commands == [
        "python -m data.hold_out --logs logs --from 2026-01-05 --output work/split",
        "python -m data.mine --logs work/split --perspectives search_log --output work/search_log/labels",
        "python -m data.write_records --labels work/search_log/labels --logs work/split --vocabulary-size 4096 "
        "--max-tokens 32 --max-query-tokens 16 --output work/search_log/records",
        "python -m launch.train work/config.py --records work/search_log/records --output work/search_log/run",
        "python -m launch.embed --run work/search_log/run --texts work/split --tower document "
        "--output work/search_log/embeddings",
        "python -m launch.evaluate --run work/search_log/run --logs work/split "
        "--document-embeddings work/search_log/embeddings --name search_log --output work/search_log/evaluation",
        "python -m launch.report work --output work/report.html",
    ]


def test_cross_perspective_takes_every_perspective_and_each_arm_is_mined_on_its_own(asked):
    _, commands = asked()
    mined = [command for command in commands if "data.mine" in command]
    assert len(mined) == 2
    assert "--perspectives search_log " in mined[0]
    assert "--perspectives" not in mined[1]


def test_pretrained_weights_bring_their_tokenizer_and_an_untrained_baseline(asked):
    write_bert(Path("folder"), max_positions=512)
    _, commands = asked("minilm", {"encoder": {"weights": "folder"}}, arms="search_log")
    assert any("data.write_records" in command and "--tokenizer folder" in command for command in commands)
    assert any("launch.evaluate --run folder" in command and "--name untrained" in command for command in commands)


def test_a_warm_start_is_trained_on_documents_before_the_arms_and_every_arm_starts_from_it(asked):
    _, commands = asked(warm_start=True, warm_start_flags="--training.epochs 5", records_flags="--num-shards 2")
    warm = "work/warm_start"
    assert commands[1:5] == [
        f"python -m data.pretraining_pairs --logs work/split --until 2026-01-05 --output {warm}/pairs",
        f"python -m data.mine --logs {warm}/pairs --judgements-as-labels --grade-levels 1=4 --output {warm}/labels",
        f"python -m data.write_records --labels {warm}/labels --logs {warm}/pairs --vocabulary-from work/split "
        f"--vocabulary-size 4096 --max-tokens 32 --max-query-tokens 16 --output {warm}/records",
        f"python -m launch.train work/config.py --records {warm}/records --training.epochs 5 --output {warm}/run",
    ]
    for arm in ("search_log", "cross_perspective"):
        assert (
            f"python -m data.write_records --labels work/{arm}/labels --logs work/split --tokenizer "
            f"{warm}/records/tokenizer --max-tokens 32 --max-query-tokens 16 --num-shards 2 --output work/{arm}/records"
        ) in commands
        assert (
            f"python -m launch.train work/config.py --records work/{arm}/records --initial-run {warm}/run "
            f"--output work/{arm}/run"
        ) in commands
    assert commands[-2] == (
        f"python -m launch.evaluate --run {warm}/run --logs work/split --name warm_start --output {warm}/evaluation"
    )
    assert commands[-1] == "python -m launch.report work --output work/report.html"


def test_a_tokenizer_that_is_given_serves_the_warm_start_too(asked):
    write_tokenizer(Path("tokens"))
    _, commands = asked(warm_start=True, tokenizer="tokens", from_time="", fraction=0.2, by="group")
    assert "--until" not in commands[1]
    written = [command for command in commands if "data.write_records" in command]
    assert len(written) == 3
    assert all("--tokenizer tokens " in command and "--vocabulary" not in command for command in written)


def test_a_warm_start_that_was_interrupted_goes_on_at_its_training(tmp_path, monkeypatch):
    """The steps are processes that only write their output, and the first training is interrupted."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "documents.parquet").write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    ran, weights = [], ""

    def run_process(command, name, environment):
        ran.append(name)
        if not weights and name == "train the warm start":
            raise Interrupted("interrupted")
        output = Path(command[command.index("--output") + 1])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(f"{name} {weights if name == 'train the warm start' else ''}")
        return {"report": str(output)}

    monkeypatch.setattr(chain, "_run_process", run_process)
    config = load_config("tiny_cpu")
    arguments = pipeline.PipelineArguments(
        logs="logs", output="work", from_time="2026-01-05", arms="search_log", warm_start=True, config=config
    )
    with pytest.raises(Interrupted):
        pipeline.run_pipeline(arguments)
    before = ["hold out", "make pairs of the documents", "label the pairs", "write records of the pairs"]
    assert ran == [*before, "train the warm start"]
    ran.clear()
    weights = "first weights"
    pipeline.run_pipeline(arguments)
    assert ran == [
        "train the warm start",
        "mine search_log",
        "write records of search_log",
        "train search_log",
        "embed search_log",
        "index and evaluate search_log",
        "evaluate the warm start",
        "report",
    ]
    ran.clear()
    # Other weights are another start of the arm, whose labels and records stay.
    weights = "other weights"
    Path("work/warm_start/run").unlink()
    pipeline.run_pipeline(arguments)
    assert ran[:3] == ["train the warm start", "train search_log", "evaluate the warm start"]


@pytest.fixture
def mined(tmp_path, monkeypatch):
    """Runs the pipeline with processes that only write their output; the label table of an arm is the given text."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "documents.parquet").write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    commands = {}

    def run(labels, **changes):
        commands.clear()

        def run_process(command, name, environment):
            commands[name] = shlex.join(command[1:])
            output = Path(command[command.index("--output") + 1])
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(labels[name.removeprefix("mine ")] if name.startswith("mine ") else name)
            return {"report": str(output)}

        monkeypatch.setattr(chain, "_run_process", run_process)
        given = {"logs": "logs", "output": "work", "from_time": "2026-01-05", "config": load_config("tiny_cpu")}
        pipeline.run_pipeline(pipeline.PipelineArguments(**given | {"arms": ",".join(labels)} | changes))
        return dict(commands)

    return run


def test_arms_of_equal_label_tables_share_records_run_and_embeddings(mined, capsys):
    labels = {"search_log": "one label", "cross_perspective": "one label"}
    commands = mined(labels)
    assert list(commands) == [
        "hold out",
        "mine search_log",
        "write records of search_log",
        "train search_log",
        "embed search_log",
        "index and evaluate search_log",
        "mine cross_perspective",
        "index and evaluate cross_perspective",
        "report",
    ]
    assert commands["index and evaluate cross_perspective"] == (
        "-m launch.evaluate --run work/search_log/run --logs work/split --document-embeddings "
        "work/search_log/embeddings --name cross_perspective --output work/cross_perspective/evaluation"
    )
    assert commands["report"] == "-m launch.report work --output work/report.html"
    assert (
        "[9/12] train cross_perspective: is left out, because the labels of cross_perspective and search_log are "
        "equal, so they share one run\n"
    ) in capsys.readouterr().err
    assert mined(labels) == {}
    assert capsys.readouterr().err.count("is left out") == 3


def test_an_arm_shares_the_run_of_the_first_arm_that_equals_it(mined):
    commands = mined({"search_log": "one", "query_level": "two", "system_level": "two", "cross_perspective": "two"})
    assert [name for name in commands if name.startswith("train")] == ["train search_log", "train query_level"]
    for arm in ("system_level", "cross_perspective"):
        assert "--run work/query_level/run " in commands[f"index and evaluate {arm}"]


def test_arms_of_different_label_tables_are_both_trained(mined):
    commands = mined({"search_log": "one", "cross_perspective": "two"}, warm_start=True)
    assert [name for name in commands if name.startswith("train")] == [
        "train the warm start",
        "train search_log",
        "train cross_perspective",
    ]


def test_labels_that_become_different_are_trained_on(mined):
    assert "train cross_perspective" not in mined({"search_log": "one", "cross_perspective": "one"})
    Path("work/cross_perspective/labels").unlink()
    commands = mined({"search_log": "one", "cross_perspective": "two"})
    assert "train cross_perspective" in commands
    assert "--run work/cross_perspective/run " in commands["index and evaluate cross_perspective"]


def test_groups_and_further_flags_go_where_they_belong(asked):
    _, commands = asked(
        from_time="", fraction=0.2, by="group", mine_flags="--alpha 0.5", evaluate_flags="--k1 0.9 --b 0.4"
    )
    assert "--fraction 0.2 --by group" in commands[0]
    assert all("--alpha 0.5" in command for command in commands if "data.mine" in command)
    assert all("--k1 0.9 --b 0.4" in command for command in commands if "launch.evaluate" in command)


def test_bad_rows_are_set_aside_before_anything_else_reads_the_logs(asked):
    _, commands = asked(on_bad_rows="quarantine")
    assert "--on-bad-rows quarantine" in commands[0]
    assert not [command for command in commands[1:] if "--on-bad-rows" in command]


def test_a_trained_discriminator_sees_the_training_part_only_and_decides_the_split(asked):
    _, commands = asked(discriminator="cross_encoder", discriminator_flags="--layers 1", arms="search_log")
    held_out = "python -m data.hold_out --logs logs --from 2026-01-05"
    assert commands[:3] == [
        f"{held_out} --output work/split_for_discriminator",
        "python -m launch.train_discriminator --logs work/split_for_discriminator --layers 1 "
        "--output work/discriminator",
        f"{held_out} --discriminator work/discriminator --output work/split",
    ]
    # The split keeps it, and mining takes what the split keeps.
    assert "--discriminator" not in commands[3]


def test_judgements_may_keep_their_own_split(asked):
    _, commands = asked(from_time="", by="split")
    assert commands[0] == "python -m data.hold_out --logs logs --by split --output work/split"


def test_the_configuration_that_is_trained_is_the_one_that_was_asked_for(asked):
    asked(sections={"optimizer": {"learning_rate": 0.125}})
    assert load_config("work/config.py") == load_config("tiny_cpu").replace(optimizer={"learning_rate": 0.125})


def test_a_work_directory_of_other_arguments_is_refused_with_the_difference(asked):
    asked()
    Path("work/steps.json").write_text("{}")
    asked()
    with pytest.raises(InputError, match=r"\(config\.optimizer\.learning_rate [0-9.e-]+, now 0\.125\)"):
        asked(sections={"optimizer": {"learning_rate": 0.125}})
    with pytest.raises(InputError, match=r"--from 2026-01-05, now 2026-01-06"):
        asked(from_time="2026-01-06")
    Path("logs/documents.parquet").write_bytes(b"two")
    with pytest.raises(InputError, match="--logs has changed"):
        asked()


def test_arguments_may_be_mended_until_a_step_is_done(asked):
    asked(from_time="2026-01-31")
    asked(from_time="2026-01-05")


def test_what_killed_steps_left_under_temporary_names_is_removed(asked):
    asked()
    left = [Path("work/.split-abc.tmp"), Path("work/search_log/.labels-abc.tmp")]
    for folder in left:
        folder.mkdir(parents=True)
    asked()
    assert not [folder for folder in left if folder.exists()]


def test_a_directory_of_the_users_is_not_taken_for_work(asked):
    Path("work").mkdir()
    Path("work/thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        asked()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"from_time": ""}, "what to hold out"),
        ({"by": "group", "fraction": 0.2}, "what to hold out"),
        ({"arms": "search_log,magic"}, "magic"),
        ({"arms": ""}, "--arms"),
        ({"arms": "search_log,search_log"}, "each once"),
        ({"mine_flags": "--alpha '0.5"}, "words"),
        ({"warm_start_flags": "--training.epochs 5"}, "give --warm-start too"),
        (
            {"warm_start": True, "config": "minilm", "sections": {"encoder": {"weights": "folder"}}},
            "--warm-start and --encoder.weights both",
        ),
    ],
)
def test_wrong_arguments_are_refused(asked, changes, words):
    with pytest.raises(InputError, match=words):
        asked(**changes)
