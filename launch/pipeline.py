"""Runs all steps with one resumable command: hold out, mine, write records, train, embed, index, evaluate, report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crops_jax import artifacts, program
from crops_jax.artifacts import in_place
from crops_jax.artifacts.lock import LOCK, exclusive
from crops_jax.config.module import as_module
from crops_jax.devices import processes
from crops_jax.errors import InputError
from crops_jax.program.chain import COMMAND, STEPS, Chain, Step
from launch.steps.arguments import PipelineArguments, check, named_arms
from launch.steps.arms import arm_steps, mining_step, trained_in
from launch.steps.preflight import check_start
from launch.steps.programs import evaluation_step, splitting_steps
from launch.steps.warm_start import WARM_START, warm_start_steps

_PROGRAM = "launch.pipeline"


def run_pipeline(arguments: PipelineArguments) -> dict[str, Any]:
    """Runs all steps from log tables to the report; a second call continues at the first unfinished step.

    Each step is one program of this project. Its command is printed and can be run by hand. Arms whose label tables are
    equal share the records and the run of the first of them. The last line of standard output has the path of the
    report, the main figures of each arm (one system of the comparison), and the arms that share a run ("shared_runs").
    """
    processes.refuse_several(_PROGRAM)
    arms = named_arms(arguments)
    check(arguments)
    check_start(arguments)
    work = Path(arguments.output)
    planned = list(_steps(arguments, arms, work))
    work.mkdir(parents=True, exist_ok=True)
    refusal = f"another process works in {work}; wait until it ends, or stop it"
    # The steps inherit the lock: after a chain was killed, no second chain starts while one of its steps still runs.
    with exclusive(work / LOCK, refusal=refusal, patience_seconds=60, inherited_by_children=True):
        _claim(work, arguments)
        for folder in {step.output.parent for step in planned}:
            artifacts.remove_temporaries(folder)  # of steps that were killed
        chain = Chain(work, planned=planned)
        # The steps of an arm depend on its labels, so they are made again one by one.
        outcomes = [chain.run(step) for step in _steps(arguments, arms, work)]
    set_aside = {name: value for name, value in outcomes[0].items() if name in ("quarantined", "quarantine")}
    return {**outcomes[-1], "work": str(work), **set_aside}


def _steps(arguments: PipelineArguments, arms: list[str], work: Path) -> Iterator[Step]:
    splitting = list(splitting_steps(arguments, work))
    yield from splitting
    split = splitting[-1].output
    if arguments.warm_start:
        yield from warm_start_steps(arguments, split, work / WARM_START)
    pages: list[Path] = []
    trained: list[Path] = []
    for arm in arms:
        folder = work / arm
        yield mining_step(arguments, arm, split, folder)
        run_of = trained_in(folder, trained)
        yield from arm_steps(arguments, arm, split, folder, run_of)
        own_run = [folder / "run"] if run_of == folder else []
        pages += [folder / "labels", *own_run, folder / "evaluation"]
        trained += [folder] if own_run else []
    weights, warm = arguments.config.encoder.weights, work / WARM_START
    if weights:
        untrained = work / "untrained"
        name = "evaluate the untrained encoder"
        yield evaluation_step(name, arguments, Path(weights), split, untrained, "untrained", is_run=False)
        pages.append(untrained / "evaluation")
    if arguments.warm_start:
        yield evaluation_step("evaluate the warm start", arguments, warm / "run", split, warm, WARM_START)
        pages += [warm / "run", warm / "evaluation"]
    report = work / "report.html"
    yield Step(
        name="report",
        module="launch.report",
        arguments=(str(work), "--output", str(report)),
        inputs=tuple(pages),
        output=report,
    )


def _claim(work: Path, arguments: PipelineArguments) -> None:
    """Writes the manifest and the configuration of WORK. Raises InputError if WORK has steps of others."""
    manifest = artifacts.new_manifest(
        program=_PROGRAM, kind="work", arguments=arguments, inputs={"logs": arguments.logs}
    )
    if (work / artifacts.MANIFEST).exists():
        in_place.check_written_by(work, program=_PROGRAM, kind="work", noun="the work")
    elif foreign := [path.name for path in work.iterdir() if path.name != LOCK]:
        raise InputError(f"{work} holds files that are not this pipeline's ({foreign[0]}); choose another --output")
    if (work / STEPS).exists():
        remedy = "give the same ones to go on, or choose another --output"
        in_place.check_same(work, manifest, remedy=remedy, flags={"from_time": "--from"})
    else:
        artifacts.write_manifest(work, manifest)
    if command := program.called_command():
        artifacts.write_text(work / COMMAND, command + "\n")
    heading = "The resolved configuration of this pipeline."
    artifacts.write_text(work / "config.py", as_module(arguments.config, heading=heading))


if __name__ == "__main__":
    program.run(
        run_pipeline,
        example="python -m launch.pipeline tiny_cpu --logs logs --from 2026-01-05 --output work",
        uses_devices=True,
        then=(
            "launch.search --run {output}/ARM/run --logs {logs} QUERY",
            "launch.export --run {output}/ARM/run --output FOLDER",
        ),
        device=True,
    )
