"""Tables of TPU slices, by the compiler alone: the memory, the FLOPs, the time and the cost of a train step."""

from benchmarks.figures.markdown import amount, number, table
from benchmarks.figures.results import Result
from crops_jax.devices.accelerators import accelerator_of

_GIB = 1 << 30
_UTILISATION = 0.4
"""The share of the peak at which the cost of a billion examples is told. It is an assumption and no measurement."""
_CHIP_HOUR_DOLLARS = {"v4": 3.22, "v5e": 1.20, "v5p": 4.20, "v6e": 2.70}
"""The list prices of a chip-hour on demand in regions of the USA, cloud.google.com/tpu/pricing in 2025."""


def compilation(result: Result) -> str:
    rows = [
        [
            f"`{one['topology']}`",
            f"{one['needed_bytes'] / _GIB:.2f} of {one['memory_bytes'] / _GIB:.0f} GiB",
            _power(one["compiler_flops"]),
            f"{1000 * one['estimated_seconds']:.0f} ms ({one['estimate']})",
            number(one["model_flops_utilization"], digits=2),
        ]
        for one in result.values["outcomes"]
    ]
    header = ["slice", "memory a chip", "FLOPs a chip", "estimated step", "utilisation that this implies"]
    return table(header, rows)


def a_billion_examples(result: Result) -> str:
    """The chip-hours of 10^9 queries from the model FLOPs of a step, at a share of the peak that good runs reach."""
    rows = []
    for one in result.values["outcomes"]:
        chip = accelerator_of(one["device_kind"])
        assert chip is not None, one["device_kind"]
        flops = one["model_flops"] * one["devices"] / one["queries"]
        chip_hours = 1e9 * flops / (_UTILISATION * chip.peak_flops) / 3600
        price = _CHIP_HOUR_DOLLARS[one["topology"].partition(":")[0]]
        rows.append(
            [
                f"`{one['topology']}`",
                _power(flops),
                f"{chip.peak_flops / 1e12:.0f}e12",
                amount(chip_hours),
                number(chip_hours / one["devices"], digits=1),
                number(price, digits=2),
                amount(chip_hours * price),
            ]
        )
    header = [
        "slice",
        "model FLOPs of an example",
        "peak FLOPs of a chip in a second",
        "chip-hours",
        "hours on the slice",
        "dollars a chip-hour",
        "dollars",
    ]
    return table(header, rows)


def _power(value: float) -> str:
    return f"{value:.1e}".replace("e+", "e")
