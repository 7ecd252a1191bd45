"""The comparison as a list of commands: what is made once, what is run again, and what ends it."""

import csv
import dataclasses
import importlib.util
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.program.chain import Chain
from launch.compare import compare
from launch.comparison.arguments import CompareArguments, budget_of
from launch.comparison.systems import SYSTEMS
from tests.launch.comparison.evaluations import write_values

QUERIES = [f"query {number}" for number in range(25)]
RANKINGS = ("encoder", "bm25", "fusion_weighted", "reranked", "poly_encoder", "poly_encoder_exhaustive")


class Programs:
    """Stands in for the programs of the chain: writes what they would write, and notes their commands."""

    def __init__(self):
        self.commands: list[str] = []
        self.skipped: dict[str, str] = {}
        self.failing: BaseException | None = None
        self.fails_at = ""
        self.levels_matter = True

    def run(self, chain: Chain, step) -> dict:
        self.commands.append(" ".join([step.module, *step.arguments]))
        if self.failing is not None and self.fails_at in step.name:
            raise self.failing
        step.output.mkdir(parents=True, exist_ok=True)
        return getattr(self, step.module.replace(".", "_") or "data_hold_out")(step)

    def data_simulate(self, step) -> dict:
        (step.output / "documents.parquet").write_text("documents")
        return {"test_from": "2026-01-03T00:00:00Z"}

    def data_hold_out(self, step) -> dict:
        (step.output / "documents.parquet").write_text("documents")
        return {}

    launch_train_discriminator = data_hold_out

    data_pretraining_pairs = data_hold_out

    def data_mine(self, step) -> dict:
        if "--judgements-as-labels" in step.arguments:
            (step.output / "labels.parquet").write_text("pairs")
            return {}
        asked = self.flag(step, "--perspectives")
        names = asked.split(",") if asked else ["every"]
        levels = self.flag(step, "--levels") if self.levels_matter else ""
        (step.output / "labels.parquet").write_text(f"{names} {levels}")
        return {"skipped": {name: why for name, why in self.skipped.items() if name in names}}

    def data_write_records(self, step) -> dict:
        labels = Path(self.flag(step, "--labels")) / "labels.parquet"
        (step.output / "train.tfrecord").write_text(labels.read_text())
        return {}

    def data_report(self, step) -> dict:
        gain = {"queries": 3, "positives": 4, "documents": 4, "only_here": 1, "not_clicked_share": 0.25}
        precision = {"query_level": {"pairs": 4, "relevant": 3, "value": 0.75}}
        return {"report": "a path", "perspectives": {"query_level": gain}, "precision_by_truth": precision}

    def launch_embed(self, step) -> dict:
        (step.output / "vectors").write_text(" ".join(step.arguments))
        return {}

    def launch_mine_negatives(self, step) -> dict:
        (step.output / "labels.parquet").write_text(" ".join(step.arguments))
        return {}

    def launch_train(self, step) -> dict:
        config = Path(step.arguments[0]).read_text()
        (step.output / "checkpoint").write_text(config)
        lines = [{"event": "start", "step": 0, "compute_seconds": 0.0}, {"event": "first_step", "step": 1}]
        lines += [{"step": 10 * n, "compute_seconds": 1.0 if n > 1 else 60.0} for n in (1, 2, 3)]
        lines += [{"event": "end", "step": 31, "compute_seconds": 9.0}]
        (step.output / "goodput.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        fast = "learning_rate=0.002" in config or "learning_rate=0.02" in config
        return {"steps": 30, "best_step": 20, "dev_recall_at_10": 0.75 if fast else 0.5}

    def launch_evaluate(self, step) -> dict:
        name = self.flag(step, "--name")
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        values = [
            (system, test, "all", query, metric, float(generator.random()))
            for system in RANKINGS
            for test, metric in (("ct", "recall@100"), ("judgements", "ndcg@4"), ("judgements", "ndcg@10"))
            for query in QUERIES
        ]
        write_values(step.output, values)
        seconds = {"contexts": 0.5, "reranking": 0.25, "every_document": 2.0}
        described = {"poly_encoder": {"seconds_per_query": seconds}} if "--rerank-by" in step.arguments else {}
        (step.output / "metrics.json").write_text(json.dumps(described))
        return {}

    @staticmethod
    def flag(step, name: str) -> str:
        return step.arguments[step.arguments.index(name) + 1] if name in step.arguments else ""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stand_in = Programs()
    monkeypatch.setattr(Chain, "run", lambda chain, step: stand_in.run(chain, step))
    return stand_in


def run(**changes) -> dict:
    given: dict[str, Any] = {"output": "table", "systems": "bm25,crops,nce", "seeds": 2}
    given |= {"learning_rate_factors": (1.0,), "bootstrap_samples": 1000}
    given |= {"warm_start": "none", "transformer": "tiny_cpu", "hashed": "tiny_hashed"}
    given |= changes
    return compare(CompareArguments(**given))


def calls(programs: Programs, name: str) -> list[str]:
    return [command for command in programs.commands if command.startswith(name)]


def rows(name: str = "table.csv") -> list[dict[str, str]]:
    with open(Path("table") / name, newline="") as opened:
        return list(csv.DictReader(opened))


def test_everything_that_cells_share_is_a_command_and_runs_once(programs):
    outcome = run(world="--documents 200", discriminator="cross_encoder", discriminator_flags="--layers 1")
    assert programs.commands[:5] == [
        "data.simulate --documents 200 --output table/shared/logs",
        "data.hold_out --logs table/shared/logs --from 2026-01-03T00:00:00Z "
        "--output table/shared/split_for_discriminator",
        "launch.train_discriminator --logs table/shared/split_for_discriminator --layers 1 "
        "--output table/shared/discriminator",
        "data.hold_out --logs table/shared/logs --from 2026-01-03T00:00:00Z --discriminator "
        "table/shared/discriminator --output table/shared/split",
        "data.mine --logs table/shared/split --perspectives search_log --levels hla "
        "--output table/shared/labels/search_log-hla",
    ]
    assert len(calls(programs, "data.mine")) == 3
    records = calls(programs, "data.write_records")
    assert "--vocabulary-size 4096 --max-tokens 32 --max-query-tokens 16" in records[0]
    assert all("--tokenizer table/shared/records/search_log-hla/tokenizer" in command for command in records[1:])
    assert outcome["cells"] == {"finished": 9, "ran": 9, "taken_over": 0, "in_the_table": 9}
    assert len(calls(programs, "launch.train ")) == len(calls(programs, "launch.evaluate")) == 9
    assert all("--bm25-results table/shared/bm25.npz" in one for one in calls(programs, "launch.evaluate"))


def test_a_system_that_distils_learns_from_records_of_its_own(programs):
    run(systems="crops,distilled", seeds=1)
    shared = "table/shared"
    scored = calls(programs, "data.write_records")[-1]
    assert scored == (
        f"data.write_records --labels {shared}/labels/all-hla --logs {shared}/split --discriminator "
        f"{shared}/split/discriminator --tokenizer {shared}/records/search_log-hla/tokenizer --max-tokens 32 "
        f"--max-query-tokens 16 --output {shared}/scored_records/all-hla"
    )
    assert not any("--discriminator" in command for command in calls(programs, "data.write_records")[:-1])
    trained = [command.split("--records ")[1].split()[0] for command in calls(programs, "launch.train ")]
    assert trained == [f"{shared}/records/all-hla"] * 2 + [f"{shared}/scored_records/all-hla"]
    config = Path("table/runs/distilled-transformer-0-1/config.py").read_text()
    assert "distillation='kl'" in config


def test_equal_label_tables_have_one_set_of_records(programs):
    programs.levels_matter = False
    outcome = run(systems="crops,crops_binary,crops_query_level_at_4")
    assert len(calls(programs, "data.mine")) == 4
    written = [command.split("--output ")[1] for command in calls(programs, "data.write_records")]
    assert written == ["table/shared/records/search_log-hla", "table/shared/records/all-hla"]
    trained = [
        command for command in calls(programs, "launch.train ") if "--records table/shared/records/all-hla" in command
    ]
    assert len(trained) == outcome["cells"]["finished"] == 8


def test_every_system_starts_from_the_encoder_of_its_towers(programs):
    outcome = run(warm_start="catalogue", warm_start_flags="--training.epochs 2", world="--documents 200")
    warm = "table/shared/warm_start/transformer"
    similarity = f"--similarity-encoder {warm}/encoder/run"
    assert programs.commands[1:6] == [
        f"data.pretraining_pairs --logs table/shared/logs --until 2026-01-03T00:00:00Z --output {warm}/encoder/pairs",
        f"data.mine --logs {warm}/encoder/pairs --judgements-as-labels --grade-levels 1=4 "
        f"--output {warm}/encoder/labels",
        f"data.write_records --labels {warm}/encoder/labels --logs {warm}/encoder/pairs "
        "--vocabulary-from table/shared/logs --vocabulary-size 4096 --max-tokens 32 --max-query-tokens 16 "
        f"--output {warm}/encoder/records",
        f"launch.train {warm}/config.py --records {warm}/encoder/records --training.epochs 2 "
        f"--output {warm}/encoder/run",
        "data.pretraining_pairs --logs table/shared/logs --until 2026-01-03T00:00:00Z "
        "--output table/shared/warm_start/hashed/encoder/pairs",
    ]
    split_and_mining = [*calls(programs, "data.hold_out"), *calls(programs, "data.mine --logs table/shared/split")]
    assert len(split_and_mining) == 4
    assert all(similarity in command for command in split_and_mining)
    assert all(
        f"--tokenizer {warm}/encoder/records/tokenizer" in command
        for command in calls(programs, "data.write_records")[1:]
    )
    trained = [command for command in calls(programs, "launch.train ") if "/runs/" in command]
    assert len(trained) == outcome["cells"]["finished"] == 9
    for command in trained:
        towers = "hashed" if "-hashed-" in command else "transformer"
        assert f"--initial-run table/shared/warm_start/{towers}/encoder/run" in command
    Path("table/shared/steps.json").write_text("{}")
    with pytest.raises(InputError, match="--warm-start True, now False"):
        run(world="--documents 200", warm_start="none")


def test_the_default_world_has_towers_of_its_own_and_a_warm_start():
    budget = budget_of(CompareArguments(output="table"))
    assert (budget.world, budget.warm_start) == ("--world large", True)
    assert (budget.transformer, budget.hashed) == ("generated_world", "generated_world_hashed")
    others: list[dict[str, Any]] = [{"fast": True}, {"world": "--documents 200"}]
    for other in [*others, {"logs": "logs", "from_time": "2026-01-05"}]:
        budget = budget_of(CompareArguments(output="table", **other))
        assert (budget.warm_start, budget.transformer) == (False, "tiny_cpu")
        assert budget.warm_start_flags == ""


def test_a_finished_cell_is_not_run_again(programs):
    first = run()
    programs.commands.clear()
    again = run()
    assert calls(programs, "launch.") == []
    assert again == first | {"cells": first["cells"] | {"ran": 0, "taken_over": 9}}


def test_results_alone_are_enough_to_finish_a_table_on_another_day(programs):
    run(systems="bm25,nce")
    for name in ("runs", "compilation_cache"):
        shutil.rmtree(Path("table") / name, ignore_errors=True)
    programs.commands.clear()
    outcome = run()
    assert outcome["cells"] == {"finished": 9, "ran": 4, "taken_over": 5, "in_the_table": 9}
    assert {"crops"} == {command.split("--name ")[1].split("-")[0] for command in calls(programs, "launch.evaluate")}
    programs.commands.clear()
    outcome = run(systems="nce", seeds=3)
    assert outcome["cells"] == {"finished": 6, "ran": 2, "taken_over": 4, "in_the_table": 11}


def test_a_new_table_takes_over_committed_results_whose_inputs_are_the_present_ones(programs):
    first = run(results="committed", learning_rate_factors=(1.0, 2.0))
    assert first["cells"] == {"finished": 9, "ran": 9, "taken_over": 0, "in_the_table": 9}
    assert not Path("table/results").exists()
    assert len(list(Path("committed").glob("*-[01].json"))) == 9
    assert len(list(Path("committed").glob("*.tuning.json"))) == 4
    shutil.rmtree("table")
    programs.commands.clear()
    again = run(results="committed", learning_rate_factors=(1.0, 2.0))
    assert again == first | {"cells": {"finished": 9, "ran": 0, "taken_over": 9, "in_the_table": 9}}
    assert calls(programs, "launch.") == []
    stored = Path("committed/nce-hashed-1.json")
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"inputs": {}}))
    again = run(results="committed", learning_rate_factors=(1.0, 2.0))
    assert again["cells"] == {"finished": 9, "ran": 1, "taken_over": 8, "in_the_table": 9}


def test_cells_of_another_recipe_do_not_enter_the_table(programs):
    Path("mine.py").write_text("from configs.tiny_cpu import CONFIG\n")
    assert run(results="committed", transformer="mine.py", systems="nce,crops")["cells"]["in_the_table"] == 8
    recipe = "loss={'level_weights': (0.3, 0.3, 0.3, 1.0, 1.0)}"
    Path("mine.py").write_text(f"from configs.tiny_cpu import CONFIG as TINY\n\nCONFIG = TINY.replace({recipe})\n")
    outcome = run(output="another", results="committed", transformer="mine.py", systems="nce")
    assert outcome["cells"] == {"finished": 4, "ran": 4, "taken_over": 0, "in_the_table": 4}


def test_the_tables_and_the_page_are_made_from_committed_results_alone(programs):
    first = run(results="committed")
    programs.commands.clear()
    again = run(results="committed", output="fresh", from_results=True)
    assert programs.commands == []
    assert again["cells"] == {"finished": 9, "ran": 0, "taken_over": 9, "in_the_table": 9}
    assert (again["metrics"], again["verdicts"]) == (first["metrics"], first["verdicts"])
    for name in ("table.csv", "differences.csv", "claims.csv", "main.svg"):
        assert (Path("fresh") / name).read_bytes() == (Path("table") / name).read_bytes()
    page = Path("fresh/report.html").read_text()
    assert "simulated world" in page
    assert "75.0 %" in page  # the precision of the query level
    assert str(Path.cwd()) not in Path("committed/comparison.json").read_text()
    other = json.loads(Path("committed/nce-hashed-1.json").read_text()) | {"inputs": {"split": "another"}}
    Path("committed/nce-hashed-1.json").write_text(json.dumps(other))
    assert run(results="committed", output="fresh", from_results=True)["cells"]["in_the_table"] == 8
    with pytest.raises(InputError, match=r"comparison\.json: no such file"):
        run(results="nothing", output="fresh", from_results=True)
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        run(results="committed", output="mine", from_results=True)


def test_a_table_that_was_made_from_results_alone_can_be_finished(programs):
    run(results="committed", systems="bm25,nce")
    run(results="committed", output="fresh", from_results=True)
    assert run(results="committed", output="fresh")["cells"]["ran"] == 4


def test_fusion_evaluates_the_runs_of_crops_and_trains_none(programs):
    outcome = run(systems="crops,fusion,reranked", seeds=1)
    assert outcome["cells"]["ran"] == 4
    trained = {command.split("--output ")[1] for command in calls(programs, "launch.train ")}
    assert trained == {f"table/runs/crops-{towers}-0-1/run" for towers in ("transformer", "hashed")}
    evaluated = calls(programs, "launch.evaluate")
    assert [command.split("--name ")[1].split()[0] for command in evaluated] == [
        "crops-transformer-0",
        "crops-hashed-0",
        "fusion-transformer-0",
        "reranked-transformer-0",
    ]
    assert ["--rerank 100" in command for command in evaluated] == [False, False, False, True]
    assert ["--dev-queries 0" in command for command in evaluated] == [True, True, False, True]
    assert not [row for row in rows() if row["system"] == "fusion" and row["metric"] == "step_seconds"]


def test_a_poly_encoder_reranks_the_documents_of_crops_and_is_trained_once(programs):
    outcome = run(systems="crops,poly_encoder,poly_encoder_upper_bound", seeds=1)
    assert outcome["cells"]["ran"] == 4
    trained = {command.split("--output ")[1] for command in calls(programs, "launch.train ")}
    runs = {
        name: f"table/runs/{name}-0-1/run" for name in ("crops-transformer", "crops-hashed", "poly_encoder-transformer")
    }
    assert trained == set(runs.values())
    config = Path("table/runs/poly_encoder-transformer-0-1/config.py").read_text()
    assert "query_codes=64" in config
    evaluated = calls(programs, "launch.evaluate")[2:]
    both = f"--run {runs['crops-transformer']} --rerank-by {runs['poly_encoder-transformer']} "
    assert [both in command for command in evaluated] == [True, True]
    assert ["--every-document" in command for command in evaluated] == [False, True]
    seconds = {row["system"]: float(row["value"]) for row in rows() if row["metric"] == "query_seconds"}
    assert seconds == {"poly_encoder": 0.75, "poly_encoder_upper_bound": 2.5}
    assert run(systems="poly_encoder", seeds=1)["cells"]["ran"] == 0


def test_another_retriever_runs_the_reranking_cell_again(programs, monkeypatch):
    run(systems="poly_encoder", seeds=1, reference="poly_encoder")
    trained = {command.split("--output ")[1] for command in calls(programs, "launch.train ")}
    assert trained == {f"table/runs/{name}-transformer-0-1/run" for name in ("poly_encoder", "crops")}
    changed = dataclasses.replace(SYSTEMS["crops"], config={"loss": {"name": "infonce"}})
    monkeypatch.setitem(SYSTEMS, "crops", changed)
    assert run(systems="poly_encoder", seeds=1, reference="poly_encoder")["cells"]["ran"] == 1


def without(command: str, *flags: str) -> str:
    """Returns a command without some flags and their values."""
    words = command.split()
    for flag in flags:
        at = words.index(flag)
        del words[at : at + 2]
    return " ".join(words)


def test_a_system_that_refreshes_its_negatives_is_one_run_on_records_with_all_documents(programs):
    run(systems="dpr,ance,simans", seeds=1)
    shared, lexical = "table/shared", "table/shared/bm25_negatives/search_log-binary"
    [mined] = calls(programs, "launch.mine_negatives")
    assert mined.startswith(f"launch.mine_negatives --labels {shared}/labels/search_log-binary --ranked-by bm25 ")
    written = {command.split("--output ")[1]: command for command in calls(programs, "data.write_records")}
    of_clicks = f"{shared}/document_records/search_log-binary"
    assert {output for output, command in written.items() if "--all-documents" in command} == {
        f"{lexical}/records",
        of_clicks,
    }
    trained = {command.split("/")[2].split("-")[0]: command for command in calls(programs, "launch.train ")}
    for name, records in (("dpr", f"{lexical}/records"), ("ance", f"{lexical}/records"), ("simans", of_clicks)):
        cell = f"table/runs/{name}-transformer-0-1"
        assert trained[name] == f"launch.train {cell}/config.py --records {records} --output {cell}/run"
    config = Path("table/runs/ance-transformer-0-1/config.py").read_text()
    assert "NegativesConfig(refresh_every_steps=250, warmup_steps=250, sampler='uniform', top=200," in config
    figures = {(row["system"], row["metric"]): row["value"] for row in rows() if row["seed"] == "0"}
    assert (float(figures["ance", "refreshes"]), float(figures["ance", "largest_staleness_steps"])) == (3, 249)
    assert ("dpr", "refreshes") not in figures
    programs.commands.clear()
    assert run(systems="dpr,ance,simans", seeds=1)["cells"]["ran"] == 0


def test_adore_trains_on_the_vectors_of_the_documents_by_star(programs):
    run(systems="adore_star", seeds=1, keep="all")
    cell, shared = "table/runs/adore_star-transformer-0-1", "table/shared"
    star, phase = f"{cell}/phases/star", f"{cell}/phases/adore"
    of_star, of_adore = calls(programs, "launch.train ")
    assert of_star == (
        f"launch.train {star}/config.py --records {shared}/document_records/search_log-binary --output {star}/run"
    )
    assert calls(programs, "launch.embed") == [
        f"launch.embed --run {star}/run --texts table/shared/split --tower document --output {phase}/documents"
    ]
    assert of_adore == (
        f"launch.train {phase}/config.py --records {shared}/records/search_log-binary --initial-run {star}/run "
        f"--document-embeddings {phase}/documents --output {cell}/run"
    )


def test_a_warm_up_is_made_once_and_phases_are_removed(programs):
    run(systems="nce,adore", seeds=2, learning_rate_factors=(1.0, 2.0))
    warm_ups = [one for one in calls(programs, "launch.train ") if "launch.train table/shared/phases/" in one]
    folders = [f"table/shared/phases/warm_up_nce-transformer-{seed}-500" for seed in (0, 1)]
    assert set(warm_ups) == {
        f"launch.train {folder}/config.py --records table/shared/records/search_log-binary --output {folder}/run"
        for folder in folders
    }
    tuned = {command.split("--output ")[1] for command in calls(programs, "launch.train ") if "/adore-" in command}
    assert tuned == {f"table/runs/adore-transformer-{tail}/run" for tail in ("0-1", "0-2", "1-2")}
    # What the phases of finished cells made is removed, also that of the learning rates that were not chosen.
    assert not list(Path("table/runs").glob("*/phases"))
    assert len(list(Path("table/runs").glob("adore-*/run"))) == 3
    programs.commands.clear()
    assert run(systems="adore", seeds=2, learning_rate_factors=(1.0, 2.0))["cells"]["ran"] == 0
    assert not calls(programs, "launch.")[1:]


def test_a_phased_cell_that_was_interrupted_goes_on_with_the_same_inputs(programs):
    programs.failing, programs.fails_at = Interrupted("stopped"), "train adore of adore_star"
    with pytest.raises(Interrupted):
        run(systems="adore_star", seeds=1)
    kept = json.loads(Path("table/runs/adore_star-transformer-0-1/inputs.json").read_text())
    programs.failing = None
    run(systems="adore_star", seeds=1, keep="all")
    assert json.loads(Path("table/runs/adore_star-transformer-0-1/inputs.json").read_text()) == kept
    [result] = Path("table/results").glob("adore_star-*.json")
    inputs = json.loads(result.read_text())["inputs"]
    # The run keeps also the fingerprints of what it read.
    assert inputs == {name: kept.get(name, value) for name, value in inputs.items()}
    assert kept["config"] == inputs["config"]


def test_the_grade_that_the_logs_declare_relevant_is_that_of_every_evaluation(programs, monkeypatch):
    monkeypatch.setattr("launch.comparison.shared.declared_relevant_grade", lambda logs: 2.0)
    run(systems="bm25")
    assert "--relevant-grade 2 " in calls(programs, "launch.evaluate")[0]
    run(systems="bm25", output="other", evaluate_flags="--relevant-grade 1")
    assert "--relevant-grade 2" not in calls(programs, "launch.evaluate")[1]


def test_a_cell_whose_inputs_changed_is_run_again(programs):
    run()
    programs.commands.clear()
    Path("table/shared/records/all-hla/train.tfrecord").write_text("others")
    changed = programs.data_write_records
    programs.data_write_records = lambda step: {} if "all-hla" in str(step.output) else changed(step)
    outcome = run()
    assert outcome["cells"]["ran"] == 4
    assert all("/runs/crops-" in command for command in calls(programs, "launch.train "))


def test_other_arguments_and_other_logs_are_refused_with_the_difference(programs):
    logs = Path("logs")
    logs.mkdir()
    (logs / "documents.parquet").write_text("one")
    given: dict[str, Any] = {"logs": "logs", "from_time": "2026-01-05", "systems": "bm25"}
    run(**given)
    Path("table/shared/steps.json").write_text("{}")
    run(**given, reference="nce")
    with pytest.raises(InputError, match=r"--from 2026-01-05, now 2026-01-06"):
        run(**given | {"from_time": "2026-01-06"})
    with pytest.raises(InputError, match=r"--steps 1000, now 5"):
        run(**given, steps=5)
    (logs / "documents.parquet").write_text("two")
    with pytest.raises(InputError, match="--logs has changed"):
        run(**given)


def test_given_logs_are_held_out_and_nothing_is_simulated(programs):
    Path("logs").mkdir()
    outcome = run(logs="logs", from_time="2026-01-05", systems="bm25")
    assert programs.commands[0] == "data.hold_out --logs logs --from 2026-01-05 --output table/shared/split"
    assert "simulated world" not in Path(outcome["report"]).read_text()


def test_each_system_is_tuned_on_dev_at_its_first_seed(programs):
    outcome = run(systems="nce", learning_rate_factors=(1.0, 2.0))
    trained = calls(programs, "launch.train ")
    assert len(trained) == 2 * (2 + 2)  # both rates at seed 0; the better one again before seed 0 and 1 are evaluated
    assert len(calls(programs, "launch.evaluate")) == 4
    assert all("-2/run" in command for command in calls(programs, "launch.evaluate"))
    factors = {row["value"] for row in rows() if row["metric"] == "learning_rate_factor"}
    assert factors == {"2.0"}
    programs.commands.clear()
    again = run(systems="nce", learning_rate_factors=(1.0, 2.0))
    assert again == outcome | {"cells": outcome["cells"] | {"ran": 0, "taken_over": 4}}
    assert calls(programs, "launch.") == []


def test_a_cell_that_fails_does_not_stop_the_others_and_ends_with_status_4(programs):
    programs.failing, programs.fails_at = NamedFailure("NaN loss"), "train nce-transformer-0"
    with pytest.raises(NamedFailure, match=r"1 of 9 cells failed \(nce-transformer-0: NaN loss\)"):
        run()
    assert {row["system"] for row in rows()} == {"bm25", "nce", "crops"}
    assert "nce-transformer-0 failed" in Path("table/report.html").read_text()
    programs.failing = None
    assert run()["cells"] == {"finished": 9, "ran": 1, "taken_over": 8, "in_the_table": 9}


def test_an_interruption_ends_with_status_3_and_goes_on(programs):
    programs.failing, programs.fails_at = Interrupted("stopped"), "train nce-hashed-0"
    with pytest.raises(Interrupted):
        run()
    done = sorted(path.name for path in Path("table/results").iterdir())
    assert done == ["bm25-none-0.json", "comparison.json", "nce-transformer-0.json"]
    programs.failing = None
    assert run()["cells"]["ran"] == 7


def test_a_system_whose_perspective_is_missing_is_left_out_and_named(programs):
    programs.skipped = {"knowledge_level": "table knowledge_documents is not in the logs"}
    outcome = run(systems="bm25,crops,crops_knowledge_level")
    assert list(outcome["left_out"]) == ["crops_knowledge_level"]
    assert "table knowledge_documents is not in the logs" in outcome["left_out"]["crops_knowledge_level"]
    assert not list(Path("table/results").glob("crops_knowledge_level*"))
    assert "crops_knowledge_level is left out" in Path(outcome["report"]).read_text()


def test_the_evaluation_of_a_finished_cell_is_removed_unless_it_is_kept(programs):
    run(systems="bm25")
    assert not Path("table/runs/bm25-none-0-1/evaluation").exists()
    assert Path("table/runs/bm25-none-0-1/run").is_dir()
    run(output="other", systems="bm25", keep="all")
    assert Path("other/runs/bm25-none-0-1/evaluation").is_dir()


def test_the_outcome_and_the_files_agree(programs):
    outcome = run()
    assert outcome["table"] == "table/table.csv"
    found = {
        (row["system"], row["architecture"]): float(row["value"])
        for row in rows()
        if (row["seed"], row["metric"]) == ("all", "ndcg@4")
    }
    for (system, architecture), value in found.items():
        assert outcome["metrics"][f"{system}-{architecture}"]["NDCG@4"] == pytest.approx(value, abs=1e-6)
    verdicts = [row["verdict"] for row in rows("differences.csv")]
    assert {name: verdicts.count(name) for name in set(verdicts)} == outcome["verdicts"]
    cost = {row["value"] for row in rows() if row["metric"] == "step_seconds"}
    assert cost == {"0.1"}


def test_what_killed_steps_left_is_removed_and_does_not_stop_the_next_call(programs):
    def leave(*names: str) -> None:
        for name in names:
            file = Path("table") / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("half")

    leave(".manifest.json.0a.tmp")
    run(systems="bm25")
    leave("runs/bm25-none-0-1/.evaluation-1.tmp/index", "results/.bm25-none-0.json.0a.tmp")
    leave("shared/labels/.all-hla-1.tmp/labels", "shared/.split-1.tmp/documents.parquet")
    run(systems="bm25")
    assert list(Path("table").rglob(".*.tmp")) == []


def test_a_directory_of_the_users_is_not_taken_for_a_table(programs):
    Path("table").mkdir()
    Path("table/thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        run()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"systems": "magic"}, "magic"),
        ({"reference": "magic"}, "--reference"),
        ({"logs": "logs"}, "go together"),
        ({"logs": "logs", "from_time": "2026-01-05", "world": "--documents 5"}, "--world"),
        ({"seeds": 0}, "--seeds"),
        ({"learning_rate_factors": (1.0, 1.0)}, "all different"),
        ({"warm_start_flags": "--training.epochs 2"}, "--warm-start"),
        ({"discriminator_flags": "--layers 1"}, "cross_encoder"),
        ({"transformer": "nothing"}, "nothing"),
        ({"world": "--documents '5"}, "words"),
    ],
)
def test_wrong_arguments_are_refused(programs, changes, words):
    with pytest.raises(InputError, match=words):
        run(**changes)


def test_every_step_is_a_program_of_this_project(programs):
    run()
    for name in {command.split()[0] for command in programs.commands}:
        assert importlib.util.find_spec(name) is not None


@pytest.fixture
def real(programs, monkeypatch):
    """The arguments of a comparison on a real data set, whose pairs and negatives of BM25 are not made."""
    for name in ("logs", "weights"):
        Path(name).mkdir()
        (Path(name) / "file").write_text(name)
    made = lambda *arguments: Path(arguments[-1]).write_bytes(b"pairs") and 640  # noqa: E731
    monkeypatch.setattr("launch.comparison.real.shared.write_pairs", made)
    monkeypatch.setattr("launch.comparison.real.shared.number_of_pairs", lambda file: 640)
    monkeypatch.setattr("launch.comparison.real.shared.peer_absence", lambda: "")

    def negatives(labels, logs, output, *, count):
        output.mkdir(exist_ok=True)
        (output / "labels.parquet").write_text(f"{count} more")

    monkeypatch.setattr("launch.comparison.real.shared.add_lexical_negatives", negatives)
    return {"logs": "logs", "weights": "weights", "seeds": 1, "transformer": None, "hashed": None}


def test_real_data_has_its_own_split_labels_and_systems(programs, real):
    outcome = run(**real, real="homedepot", systems="")
    assert programs.commands[0] == "data.hold_out --logs logs --by split --output table/shared/split"
    mined = calls(programs, "data.mine")
    assert ["--grade-levels 1.33=4 " in command for command in mined] == [True, False]
    assert all(
        "--tokenizer weights --max-tokens 128 --max-query-tokens 128" in one for one in calls(programs, "data.wr")
    )
    assert list(outcome["left_out"]) == ["reranked"]
    assert {row["system"] for row in rows()} == {
        "bm25",
        "bm25_anserini",
        "untrained",
        "nce",
        "sentence_transformers",
        "graded",
        "fusion",
    }
    evaluated = {command.split("--name ")[1].split()[0]: command for command in calls(programs, "launch.evaluate")}
    assert "--k1 1.2 --b 0.75" in evaluated["bm25-none-0"]
    assert "--k1 0.9 --b 0.4" in evaluated["bm25_anserini-none-0"]
    # BM25 is measured beside the run of the untrained encoder, and fusion beside that of graded: one embedding each.
    embedded = {command.split("--run table/runs/")[1].split("/")[0] for command in calls(programs, "launch.embed")}
    assert embedded == {
        f"{name}-1" for name in ("untrained-none-0", "nce-transformer-0", "sentence_transformers-transformer-0")
    } | {"graded-transformer-0-1"}
    assert {row["reference"] for row in rows("differences.csv") if row["system"] != "fusion"} == {"graded"}
    assert {row["reference"] for row in rows("differences.csv") if row["system"] == "fusion"} == {"graded", "bm25"}
    page = Path(outcome["report"]).read_text()
    assert "reranked is left out" in page
    assert "simulated world" not in page


def test_sentence_transformers_is_trained_before_its_weights_are_measured(programs, real):
    run(**real, real="scifact", systems="nce,sentence_transformers", learning_rate_factors=(1.0, 2.0))
    [peers] = [[one for one in programs.commands if "--max-tokens 128 --learning-rate" in one]]
    assert ["--learning-rate 2e-05 " in one for one in peers[:2]] == [True, False]
    assert "--epochs 3 --batch 64 --max-tokens 128" in peers[0]
    assert "--weights weights --pairs table/shared/pairs.parquet" in peers[0]
    config = Path("table/runs/sentence_transformers-transformer-0-1/config.py").read_text()
    assert "runs/sentence_transformers-transformer-0-1/sentence_transformers" in config
    assert "steps=1," in config
    # 640 pairs in 3 epochs are 30 steps of 64.
    assert "steps=30," in Path("table/runs/nce-transformer-0-1/config.py").read_text()


def test_an_absent_peer_is_left_out_with_the_reason(programs, real, monkeypatch):
    monkeypatch.setattr("launch.comparison.real.shared.peer_absence", lambda: "there is no .venv-peers")
    outcome = run(**real, real="bestbuy", systems="")
    assert outcome["left_out"]["sentence_transformers"] == "there is no .venv-peers"
    # The labels of all perspectives are mined from this log, so that their sources are reported.
    [reported] = calls(programs, "data.report")
    assert "--labels table/shared/labels/all-hla --logs table/shared/split " in reported
    assert "sentence_transformers" not in {row["system"] for row in rows()}
    assert "--from 2011-10-10T17:33" in programs.commands[0]


def test_a_cross_encoder_reranks_what_has_no_clicks(programs, real):
    outcome = run(**real, real="scifact", systems="graded,reranked", discriminator="cross_encoder")
    assert not outcome["left_out"]
    assert programs.commands[1].startswith("launch.train_discriminator --logs table/shared/split_for_discriminator")
    [reranked] = [one for one in calls(programs, "launch.evaluate") if "--name reranked" in one]
    assert "--rerank 100" in reranked
    assert "--reranker table/shared/discriminator" in reranked


def test_missing_weights_are_refused_before_anything_runs(programs, real):
    with pytest.raises(InputError, match="--weights gone: no such folder"):
        run(**real | {"weights": "gone"}, real="scifact", systems="")
    assert programs.commands == []


def test_results_on_real_data_have_no_path_and_serve_another_table(programs, real):
    run(**real, real="scifact", systems="nce,sentence_transformers", results="results")
    Path("weights").rename("moved")
    programs.commands.clear()
    given = real | {"weights": "moved"}
    outcome = run(**given, real="scifact", systems="nce,sentence_transformers", results="results", output="other")
    assert outcome["cells"]["ran"] == 0
    assert calls(programs, "launch.") == []
