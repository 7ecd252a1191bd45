"""The tables that pages may hold, by the name in their markers."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import quality, slices, speed
from benchmarks.figures.comparisons import COMPARISONS, comparison_markdown
from benchmarks.figures.provenance import described
from benchmarks.figures.results import FOLDER, FiguresError, read_result


@dataclass(frozen=True)
class Shown:
    """A table: the function that makes it, the names of the results that it takes, and those whose origin it tells.

    described: None for all of `results`.
    """

    render: Callable[..., str]
    results: tuple[str, ...]
    described: tuple[str, ...] | None = None


_DISCRIMINATORS = ("discriminator_homedepot", "discriminator_qbqtc")
_PEERS = ("sentence_transformers_first_machine", "sentence_transformers_second_machine")


_unseen_pairs = functools.partial(quality.headline_systems, pairs="unseen")

FIGURES: dict[str, Shown] = {
    "demo": Shown(quality.headline_systems, ("demo",)),
    "demo_unseen_pairs": Shown(_unseen_pairs, ("demo",), described=()),
    "demo_differences": Shown(quality.differences, ("demo",), described=()),
    "demo_test_sets": Shown(quality.test_sets, ("demo",), described=()),
    "demo_labels": Shown(quality.labels, ("demo",), described=()),
    "demo_training": Shown(quality.training, ("demo",), described=()),
    "demo_time": Shown(quality.facts, ("demo_time",)),
    "discriminators": Shown(quality.discriminators, _DISCRIMINATORS),
    "recipe": Shown(quality.recipes, ("recipe",)),
    "world": Shown(quality.world, ("world",)),
    "mining": Shown(speed.mining, ("mining",)),
    "mine_negatives": Shown(speed.mine_negatives, ("mine_negatives",)),
    "compile": Shown(slices.compilation, ("compile",)),
    "a_billion_examples": Shown(slices.a_billion_examples, ("compile",), described=()),
    "sentence_transformers": Shown(speed.sentence_transformers, _PEERS),
    "representax": Shown(speed.representax, ("representax",)),
    "cold_start": Shown(speed.cold_start, ("cold_start",)),
    "micro_batches": Shown(speed.micro_batches, _PEERS, described=()),
    "exact_search": Shown(speed.exact_search, ("exact_search",)),
    "input_pipeline": Shown(speed.input_pipeline, ("input_pipeline",)),
    "input_shares": Shown(speed.input_shares, ("input_shares",)),
    "input_ranges": Shown(speed.input_ranges, ("input_ranges",)),
    "loss_time": Shown(speed.loss_time, ("loss_time",)),
    "loss_steps": Shown(speed.loss_steps, ("loss_steps",)),
    "loss_memory": Shown(speed.loss_memory, ("loss_memory",)),
    "stored_vectors": Shown(quality.facts, ("stored_vectors",)),
    "interruptions": Shown(speed.interruptions, ("interruptions",)),
    "page_faults": Shown(speed.page_faults, ("page_faults",)),
}


def markdown(name: str, *, folder: Path = FOLDER) -> str:
    """The table of a name with the provenance of its results; nothing for a comparison that has no results.

    Raises FiguresError for an unknown name.
    """
    if name in COMPARISONS:
        return comparison_markdown(name)
    if name not in FIGURES:
        raise FiguresError(f"there are no figures {name!r}; known are {', '.join([*FIGURES, *COMPARISONS])}")
    figure = FIGURES[name]
    results = {one: read_result(one, folder=folder) for one in figure.results}
    try:
        body = figure.render(*results.values())
    except (KeyError, IndexError, TypeError) as error:
        stored = ", ".join(figure.results)
        raise FiguresError(
            f"figures {name}: {stored} lack what the table shows ({error!r}); store them again"
        ) from error
    told = [results[one] for one in (figure.results if figure.described is None else figure.described)]
    # Results of one measurement on several machines have the same commands, which stand behind the last of them.
    parts = [
        described(result, with_commands=not after or after.commands != result.commands)
        for result, after in zip(told, [*told[1:], None])
    ]
    return "\n\n".join([body, *parts])
