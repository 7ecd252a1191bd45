"""Writes the generated world as log tables: documents, several days of search and feed, judgements, knowledge."""

import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import tyro
from tqdm import tqdm

from crops_jax import artifacts, program
from data.tables import open_logs, write_table
from data.world.behaviour.day import Day, serve_day
from data.world.constants import WorldConstants
from data.world.engine import Engine, present_engine
from data.world.logs import statistics
from data.world.logs.judges import judge
from data.world.logs.log_tables import day_tables, documents_table
from data.world.logs.provider import model_name, write_knowledge
from data.world.truth.documents import DAY_US
from data.world.world import RELEVANT_GRADE, World, draw_world


@dataclass(frozen=True, kw_only=True)
class SimulateArguments:
    """The settings of one run: the constants of a world, and the directory for its log."""

    output: str
    """The directory that the log tables are written to."""
    overwrite: bool = False
    """Replaces the output if it exists."""
    seed: int = 0
    """The seed of all random numbers. Two runs with the same seed and the same constants write the same bytes."""
    world: Annotated[WorldConstants, tyro.conf.arg(name="")] = field(default_factory=WorldConstants)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, found {self.seed}")


def simulate(arguments: SimulateArguments) -> dict[str, Any]:
    """Writes the generated world as log tables, judgements included.

    The world serves to measure mechanisms. Its words, its users and its search engine are invented.
    """
    constants = arguments.world
    with artifacts.output_directory(
        arguments.output,
        overwrite=arguments.overwrite,
        program="data.simulate",
        kind="logs",
        arguments=arguments,
        inputs={},
        test_from=_iso_text(start_of_test(constants)),
        relevant_grade=RELEVANT_GRADE,
    ) as directory:
        world = draw_world(constants, seed=arguments.seed)
        days, engine = serve_days(world, present_engine(world))
        tables = log_of(world, engine, days)
        for name, table in tables.items():
            if table.num_rows:
                write_table(directory, name, table)
        open_logs(directory)
    return {
        "output": arguments.output,
        "test_from": _iso_text(start_of_test(constants)),
        "rows": {name: table.num_rows for name, table in tables.items()},
        "model": model_name(constants.knowledge_error_rate),
        "statistics": describe(world, engine, days),
    }


def serve_days(world: World, engine: Engine) -> tuple[list[Day], Engine]:
    """Serves all days in order; returns them and the engine after the last day.

    The engine learns the clicks of each day before the next day starts.
    """
    days = []
    for number in tqdm(range(world.constants.days), desc="serving days", unit="day", file=sys.stderr):
        days.append(serve_day(world, engine, day=number))
        engine = engine.after(days[-1].clicked_documents())
    return days, engine


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
        **statistics.retrieval_against_truth(world, engine, searches),
        "feed_near_searches": statistics.feed_novelty(world, days),
    }


if __name__ == "__main__":
    program.run(simulate, example="python -m data.simulate --output logs --seed 0")
