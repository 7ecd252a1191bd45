"""Results of cells with values made by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch.comparison.results.conditions import Conditions
from launch.comparison.results.files import Result, measured

CONDITIONS = Conditions(
    seconds=60.0,
    packages={"jax": "1", "flax": "2", "numpy": "3"},
    processor="A processor",
    cores=2,
    fingerprints={"records": "r"},
)


def made_up_result(
    system: str,
    architecture: str,
    seed: int,
    values: Mapping[str, Sequence[float]],
    *,
    fingerprint: str = "q",
    means_alone: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
    figures: Mapping[str, float] | None = None,
) -> Result:
    """Returns the result of a cell.

    Args:
      system, architecture, seed: the cell.
      values: metric -> one value for each query.
      fingerprint: the fingerprint of the queries of every metric.
      means_alone: the metrics of which only the mean is kept.
      inputs: what the result was made from.
      figures: numbers of the run.
    """
    return Result(
        system=system,
        architecture=architecture,
        seed=seed,
        inputs=inputs or {},
        figures=figures or {},
        conditions=CONDITIONS,
        metrics={
            metric: measured(of_queries, fingerprint=fingerprint, with_values=metric not in means_alone)
            for metric, of_queries in values.items()
        },
    )
