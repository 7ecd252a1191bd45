"""Writes the generated world as log tables: documents, several days of search and feed, judgements, knowledge."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import tyro

from crops_jax import artifacts, program
from crops_jax.program.progress import ProgressLine
from crops_jax.storage import OutputPath
from data.tables import open_logs, write_table
from data.tables.truth import write_truth
from data.world.behaviour.day import Day, serve_day
from data.world.constants import WorldConstants
from data.world.engine import Engine, present_engine
from data.world.logs import statistics
from data.world.logs.judges import judge
from data.world.logs.language_model import model_name, write_knowledge
from data.world.logs.log_tables import day_tables, documents_table
from data.world.logs.room import measure_room
from data.world.logs.truth_table import truth_table
from data.world.presets import Preset, named_by
from data.world.targets import compare_with_targets
from data.world.truth.documents import DAY_US
from data.world.world import RELEVANT_GRADE, World, draw_world


@dataclass(frozen=True, kw_only=True)
class SimulateArguments:
    """The settings of one run: the constants of a world, and the directory for its log."""

    output: OutputPath
    """The directory that the log tables are written to."""
    overwrite: bool = False
    """Replaces the output if it exists."""
    seed: int = 0
    """The seed of all random numbers. Two runs with the same seed and the same constants write the same bytes."""
    preset: Annotated[Preset, tyro.conf.arg(name="world")] = "small"
    """The named world whose constants are the defaults of all other flags: "small" for the demo and for tests, "large"
    for comparisons."""
    world: Annotated[WorldConstants, tyro.conf.arg(name="")] = field(default_factory=WorldConstants)

    @classmethod
    def named_defaults(cls, arguments: Sequence[str]) -> dict[str, Any]:
        """Returns the fields whose defaults depend on the world that a command line names."""
        return {"world": named_by(arguments)}

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, found {self.seed}")


def simulate(arguments: SimulateArguments) -> dict[str, Any]:
    """Writes the generated world as log tables, judgements included.

    The world serves to measure mechanisms. Its words, its users and its search engine are invented.
    """
    constants = arguments.world
    room: dict[str, Any] = {}  # filled when the days are served; the manifest is written after that
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="data.simulate",
        kind="logs",
        arguments=arguments,
        inputs={},
        test_from=_iso_text(start_of_test(constants)),
        relevant_grade=RELEVANT_GRADE,
        room=room,
    ) as directory:
        world = draw_world(constants, seed=arguments.seed)
        served = serve_days(world, present_engine(world))
        tables = log_of(world, served.engine, served.days)
        for name, table in tables.items():
            if table.num_rows:
                write_table(directory, name, table)
        open_logs(directory)
        truth = truth_table(world, served.days)
        write_truth(directory, truth)
        room.update(room_of(world, served))
        found = describe(world, served.engine, served.days)
    return {
        "output": arguments.output,
        "test_from": _iso_text(start_of_test(constants)),
        "rows": {name: table.num_rows for name, table in tables.items()},
        "model": model_name(constants.knowledge_error_rate),
        "truth_pairs": truth.num_rows,
        "room": room,
        "statistics": found,
        "targets": compare_with_targets(measured_targets(world, served, tables["judgements"], room)),
    }


class Served(NamedTuple):
    """The served days, the engine of the last day, and the engine after it."""

    days: list[Day]
    last_engine: Engine
    engine: Engine


def serve_days(world: World, engine: Engine) -> Served:
    """Serves all days in order.

    The engine learns the clicks of each day before the next day starts.
    """
    days, last_engine = [], engine
    for number in ProgressLine(range(world.constants.days), desc="serving days", unit="days", delay=0):
        last_engine = engine
        days.append(serve_day(world, engine, day=number))
        engine = engine.after(days[-1].clicked_documents(), clicks=days[-1].clicks(world))
    return Served(days, last_engine, engine)


def room_of(world: World, served: Served) -> dict[str, Any]:
    """Returns what simple retrievers, the engine and the truth recall of the last day's test."""
    constants = world.constants
    last_day_us = constants.start_us + (constants.days - 1) * DAY_US
    return measure_room(
        world,
        served.last_engine,
        served.days,
        test_from_us=int(start_of_test(constants).timestamp()) * 1_000_000,
        published=int(world.published_before(last_day_us).sum()),
    )


def log_of(world: World, engine: Engine, days: Sequence[Day]) -> dict[str, pa.Table]:
    """Returns all log tables of the served days, by name.

    The simulated language model sees only the clicks of the days before the last one, so none of the test period.
    """
    per_day = [day_tables(world, day) for day in days]
    joined = {name: pa.concat_tables([tables[name] for tables in per_day]) for name in per_day[0]}
    return {
        "documents": documents_table(world.documents),
        **joined,
        "judgements": judge(world, engine, days),
        "knowledge_documents": write_knowledge(world, days[:-1]),
    }


def start_of_test(constants: WorldConstants) -> datetime.datetime:
    """Returns the start of the test period: the start of the last day, or 18:00 if the world has only one day."""
    offset = (constants.days - 1) * DAY_US if constants.days > 1 else DAY_US * 3 // 4
    return datetime.datetime.fromtimestamp((constants.start_us + offset) / 1e6, datetime.UTC)


def _iso_text(time: datetime.datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def describe(world: World, engine: Engine, days: Sequence[Day]) -> dict[str, Any]:
    """Returns statistics that show whether the world is plausible; data.world.logs.statistics defines each of them."""
    searches = statistics.joined_searches(days)
    return {
        "distinct_queries_asked": len(np.unique(searches.query)),
        "documents_ever_shown": len(np.unique(searches.pages.shown[searches.pages.shown >= 0])),
        "click_through_by_position": statistics.click_through_by_position(searches),
        "searches_with_a_click": round(float(searches.clicked.any(axis=1).mean()), 4),
        "reformulated_within_90_s": round(statistics.reformulation_rate(searches), 4),
        "mean_grade": statistics.mean_grade_by_stage(world, searches),
        **statistics.retrieval_against_truth(world, engine, days),
        "clicks_by_position": statistics.clicks_by_position(searches),
        "relevant_shares": statistics.relevant_shares(world, searches),
        "test_pairs_in_training_log": statistics.known_test_shares(days),
        "feed_near_searches": statistics.feed_novelty(world, days),
    }


def measured_targets(
    world: World, served: Served, judgements: pa.Table, room: Mapping[str, Any]
) -> dict[str, float | None]:
    """Returns what the simulation itself can measure of data.world.targets."""
    searches = statistics.joined_searches(served.days)
    by_position, relevant = statistics.clicks_by_position(searches), statistics.relevant_shares(world, searches)
    return {
        "bm25_ct_recall@100": room["bm25"]["ct_recall@100"],
        "bm25_qr_recall@100": room["bm25"]["qr_recall@100"],
        "bm25_ndcg@4": statistics.lexical_ndcg(world, served.engine, judgements),
        "searches_with_a_click": round(float(searches.clicked.any(axis=1).mean()), 4),
        "reformulated_within_90_s": round(statistics.reformulation_rate(searches), 4),
        "clicks_on_the_first": by_position["first"],
        "clicks_on_the_first_three": by_position["first_three"],
        "clicks_from_the_sixth": by_position["from_sixth"],
        **{f"relevant_among_{name}": share for name, share in relevant.items()},
        "median_seconds_to_reformulation": statistics.seconds_to_reformulation(searches),
        "users_who_search": statistics.users_who_search(world, served.days),
    }


if __name__ == "__main__":
    program.run(
        simulate,
        example="python -m data.simulate --output logs --seed 0",
        then=("launch.pipeline tiny_cpu --logs {output} --from {test_from} --output WORK",),
    )
