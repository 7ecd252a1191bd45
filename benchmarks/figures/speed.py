"""Tables of speed and memory, each beside its aim. Each function turns the outcomes of a benchmark into Markdown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.figures.markdown import ABSENT, amount, number, reached, table
from benchmarks.figures.results import Result

_LOSS_MEMORY_AIMS = {(1 << 15, 256): 0.3, (1 << 15, 768): 0.5, (1 << 17, 256): 1.2}
_GRADING_AIM = 1.1
_MICRO_BATCHES_AIM = 1.35
_FAISS_AIM = 0.9
_MINING_SECONDS_AIM, _MINING_GIGABYTES_AIM, _MINING_RATIO_AIM = 300, 4, 1.15


@dataclass(frozen=True, kw_only=True)
class Case:
    """A comparison with sentence-transformers, known by three fields of its outcome, and what it shall reach."""

    benchmark: str
    texts: str
    """How the field pairs or texts of the outcome begins."""
    batch: int | None
    label: str
    as_installed: float | None = None
    """The least speed against sentence-transformers as it is installed; None: no aim."""
    unlocked: float | None = None
    """The same with its matrix library unlocked."""

    def outcome(self, result: Result) -> Mapping[str, Any]:
        """The outcome of this case, or an empty one. Outcomes of micro-batches are other cases."""
        for outcome in result.values["outcomes"]:
            texts = outcome.get("pairs") or outcome.get("texts") or ""
            same = (outcome["benchmark"], outcome.get("batch")) == (self.benchmark, self.batch)
            if same and texts.startswith(self.texts) and "sentence_transformers" in outcome["speed_against"]:
                return outcome
        return {}


CASES = (
    Case(
        benchmark="training",
        texts="given",
        batch=64,
        label="training, Home Depot queries and titles (13 tokens), batches of 64 queries",
        as_installed=2.5,
        unlocked=1.4,
    ),
    Case(benchmark="training", texts="given", batch=256, label="the same, batches of 256 queries"),
    Case(
        benchmark="training",
        texts="made up, mean 60",
        batch=64,
        label="training, made-up texts of 60 tokens (32 with the queries)",
        as_installed=2.5,
        unlocked=1.4,
    ),
    Case(benchmark="training", texts="made up, every", batch=64, label="training, every text has 128 tokens"),
    Case(
        benchmark="embedding",
        texts="given",
        batch=None,
        label="embedding Home Depot titles, tokenisation included",
        unlocked=1.3,
    ),
    Case(
        benchmark="embedding",
        texts="made up, mean 60",
        batch=None,
        label="embedding made-up texts of 60 tokens",
        unlocked=1.3,
    ),
)


def sentence_transformers(*machines: Result) -> str:
    """Speed against sentence-transformers on each machine, as installed / unlocked, and whether it reaches the aims."""
    names = [result.title.rpartition(", ")[2] for result in machines]
    header = ["times as fast, as installed / unlocked", *names, "aim", *(f"reached on the {name}" for name in names)]
    rows = []
    for case in CASES:
        found = [case.outcome(result).get("speed_against", {}) for result in machines]
        pairs = [(one.get("sentence_transformers"), one.get("sentence_transformers_unlocked")) for one in found]
        aims = (case.as_installed, case.unlocked)
        rows.append(
            [
                case.label,
                *(_pair(number(one, digits=2) for one in pair) for pair in pairs),
                _pair(number(aim, digits=1) for aim in aims),
                *(_pair(reached(one, at_least=aim) for one, aim in zip(pair, aims, strict=True)) for pair in pairs),
            ]
        )
    return table(header, rows)


def representax(result: Result) -> str:
    rows = []
    for one in result.values["outcomes"]:
        size = f"batches of {amount(one['batch'])} pairs" if "batch" in one else f"{amount(one['count'])} texts"
        against = (one["speed_against"].get(name) for name in ("representax", "sentence_transformers"))
        texts = f"{one['benchmark']}, {one.get('pairs') or one.get('texts')}, {size}"
        rows.append([texts, *(number(value, digits=2) for value in against)])
    return table(["crops_jax, times as fast as", "representax", "sentence-transformers"], rows)


def cold_start(result: Result) -> str:
    """The seconds of whole jobs, by length and compilation cache, beside those of sentence-transformers."""
    names = {"crops_jax_cold": "empty", "crops_jax_warm": "full"}
    rows = []
    for outcome in result.values["outcomes"]:
        for steps, systems in outcome["whole_job_seconds"].items():
            times = outcome["whole_job_against_sentence_transformers"].get(steps, {})
            rows += [
                [
                    steps,
                    cache,
                    number(systems[name], digits=0),
                    *(number(outcome["seconds"][steps][name][part], digits=0) for part in ("train", "export", "load")),
                    number(systems.get("sentence_transformers"), digits=0),
                    number(times.get(name), digits=2),
                    reached(times.get(name), at_least=1.0),
                ]
                for name, cache in names.items()
            ]
    header = ["steps", "compilation cache", "crops_jax, s", "train, s", "export, s", "load, s"]
    peer = ["sentence-transformers, s", "times as fast", "ahead"]
    return table([*header, *peer], rows)


def micro_batches(*machines: Result) -> str:
    """How long a step in micro-batches takes beside a plain one, by machine and batch."""
    rows = []
    for result in machines:
        for outcome in result.values["outcomes"]:
            # The benchmark prints the speed of the plain step against the other: its seconds over those of a plain one.
            times = outcome["speed_against"].get("crops_jax_micro_batched")
            if times is not None:
                verdict = reached(times, at_most=_MICRO_BATCHES_AIM)
                name = result.title.rpartition(", ")[2]
                rows.append([name, amount(outcome["batch"]), number(times, digits=2), verdict])
    return table(
        ["machine", "queries", "times as long as a plain step", f"aim of at most {_MICRO_BATCHES_AIM} reached"], rows
    )


def exact_search(result: Result) -> str:
    rows = [
        [
            amount(one["docs"]),
            amount(one["dim"]),
            amount(one["queries"]),
            amount(one["k"]),
            number(one["speed_against_faiss"], digits=2),
            reached(one["speed_against_faiss"], at_least=_FAISS_AIM),
            f"{100 * one['same_first_document']:.0f} % of the queries",
        ]
        for one in result.values["outcomes"]
    ]
    aim = f"aim of at least {_FAISS_AIM} reached"
    return table(["documents", "components", "queries", "k", "speed against faiss", aim, "same best document"], rows)


def input_pipeline(result: Result) -> str:
    rows = []
    for one in result.values["outcomes"]:
        by_clock, by_processor = one.get("records_per_second", {}), one.get("records_per_processor_second", {})
        for stage in dict.fromkeys([*by_clock, *by_processor]):
            counts = (amount(rates.get(stage)) for rates in (by_clock, by_processor))
            rows.append([amount(one["workers"]), stage, *counts])
    header = ["worker processes", "stage", "records in a second", "records in a second of processor time"]
    return table(header, rows)


def input_shares(result: Result) -> str:
    rows = []
    for one in result.values["outcomes"]:
        batch = one["a_batch"]
        waits = f"{100 * batch['wait_share']:.2f} %" if batch["step_seconds"] else ABSENT
        names = ("processes", "read_threads", "delay_ms", "step_seconds", "records", "seconds")
        rows.append([*(number(batch[name], digits=3 if name == "seconds" else 0) for name in names), waits])
    header = [
        "processes",
        "records read at once",
        "delay of a read, ms",
        "step, s",
        "records a process reads for a batch",
        "time from batch to batch, s",
        "share of the time that a step waits",
    ]
    return table(header, rows)


def input_ranges(result: Result) -> str:
    rows = []
    for one in result.values["outcomes"]:
        given = one["arguments"]
        for row in one["rows"]:
            waits = f"{100 * row['wait_share']:.1f} %"
            rows.append(
                [
                    amount(given["records"]),
                    amount(given["queries_per_batch"]),
                    number(given["workers"], digits=0),
                    row["source"],
                    number(row["requests"], digits=0),
                    number(row["megabytes"], digits=1),
                    # The time of worker processes is not measured.
                    ABSENT if given["workers"] else number(row["processor_seconds"], digits=2),
                    number(row["seconds"], digits=2),
                    waits,
                ]
            )
    header = [
        "records",
        "queries in a batch",
        "worker processes",
        "read from",
        "requests for a batch",
        "MB for a batch",
        "processor time of a batch, s",
        "time from batch to batch, s",
        "share of the time that a step waits",
    ]
    return table(header, rows)


def mining(result: Result) -> str:
    outcome = result.values["outcomes"][0]
    largest = max(run["events"] for run in outcome["runs"])
    rows = []
    for run in outcome["runs"]:
        # The aims are those of the largest log.
        aims = (
            _pair((reached(run["seconds"], at_most=_MINING_SECONDS_AIM), reached(run["peak_rss_gb"], at_most=4)))
            if run["events"] == largest
            else ABSENT
        )
        rows.append([amount(run["events"]), amount(run["seconds"]), number(run["peak_rss_gb"], digits=1), aims])
    ratio = outcome["ratio"]["processor_seconds_per_event"]
    aim = f"aims of at most {_MINING_SECONDS_AIM} s and {_MINING_GIGABYTES_AIM} GB reached"
    return (
        table(["events", "seconds", "GB at the peak", aim], rows)
        + f"\n\nAn event of the largest log took {number(ratio, digits=2)} times the processor time of an event of the "
        f"smallest one (aim: at most {_MINING_RATIO_AIM}; reached: {reached(ratio, at_most=_MINING_RATIO_AIM)})."
    )


def mine_negatives(result: Result) -> str:
    rows = [
        [
            amount(one["queries"]),
            amount(one["docs"]),
            amount(one["dim"]),
            amount(one["pairs_per_second"]),
            number(one["peak_gb_beside_embeddings"], digits=1),
        ]
        for one in result.values["outcomes"]
    ]
    header = ["queries", "documents", "components", "pairs in a second", "GB beside the embeddings"]
    extrapolated = [
        f"At that rate, {amount(one['queries'])} queries against {amount(one['docs'])} documents take "
        f"{one['minutes']:g} minutes. This is an extrapolation that was not measured."
        for outcome in result.values["outcomes"]
        if (one := outcome.get("extrapolated"))
    ]
    return "\n\n".join([table(header, rows), *extrapolated])


def loss_time(result: Result) -> str:
    rows = []
    for one in _parts(result, "times"):
        for implementation, cost in one["h_infonce_against_infonce"].items():
            size = f"{amount(one['queries'])} x {amount(one['docs'])} x {one['dim']}, {one['dtype']}"
            passes = one["passes_of_infonce"]
            many = number(passes["against_h_infonce"], digits=1) if implementation == "streaming" else ABSENT
            rows.append([size, implementation, number(cost, digits=2), reached(cost, at_most=_GRADING_AIM), many])
    header = [
        "queries x documents x components",
        "implementation",
        "times as long as plain InfoNCE",
        f"aim of at most {_GRADING_AIM} reached",
        "four passes of InfoNCE, times as long as H-InfoNCE",
    ]
    return table(header, rows)


def loss_steps(result: Result) -> str:
    """One row for each loss of the ablation: a whole training step as a multiple of the one with H-InfoNCE."""
    [one] = result.values["outcomes"]
    rows = [
        [
            f"`{system}`",
            f"`{one['losses'][system]}`",
            number(against["clock"], digits=2),
            number(against["processor"], digits=2),
        ]
        for system, against in one["against_h_infonce"].items()
    ]
    header = ["system", "loss", "times as long as with H-InfoNCE, by the clock", "by the processor"]
    return table(header, rows)


def loss_memory(result: Result) -> str:
    rows = []
    for one in _parts(result, "gigabytes_beside_arguments_and_results"):
        aim, gigabytes = _LOSS_MEMORY_AIMS.get((one["queries"], one["dim"])), one.get("one_device", {}).get("streaming")
        others = (one.get("each_of_8_gather"), one.get("each_of_8_ring"), one["inf_cl_each_of_8"])
        rows.append(
            [
                f"{amount(one['queries'])} x {amount(one['queries'])} x {one['dim']}, {one['dtype']}",
                number(gigabytes, digits=2),
                number(aim, digits=1),
                reached(gigabytes, at_most=aim),
                *(number(other, digits=2) for other in others),
            ]
        )
    sizes = ["queries x documents x components", "GB on one device", "aim", "reached"]
    return table([*sizes, "each of 8 devices, gathered", "each of 8, in a ring", "Inf-CL, each of 8"], rows)


def interruptions(result: Result) -> str:
    rows = [
        [
            f"`{one['program']}`",
            number(one["whole_seconds"], digits=1),
            number(one["most_seconds_to_end"], digits=1),
            reached(one["most_seconds_to_end"], at_most=outcome["aim_seconds"]),
            ", ".join(map(str, one["statuses"])),
            ABSENT if one["status_of_the_next_call"] is None else str(one["status_of_the_next_call"]),
        ]
        for outcome in result.values["outcomes"]
        for one in outcome["programs"]
    ]
    rows += [
        [f"`{one['program']}`", ABSENT, ABSENT, ABSENT, f"{_status(one['status'])} {one['call']}", ABSENT]
        for one in _parts(result, "failed")
    ]
    header = [
        "program",
        "a whole run, s",
        "from SIGTERM to its end, s (maximum)",
        "reached: at most 30 s",
        "exit statuses",
        "exit status of the next call",
    ]
    return table(header, rows)


def page_faults(result: Result) -> str:
    rows = [[number(one["speedup"], digits=2)] for one in result.values["outcomes"]]
    return table(["a training step that keeps its memory, times as fast as the default"], rows)


def _status(status: int | None) -> str:
    return "no end" if status is None else str(status)


def _parts(result: Result, name: str) -> Iterator[Mapping[str, Any]]:
    """The entries of one list, over all outcomes."""
    return (part for outcome in result.values["outcomes"] for part in outcome.get(name, []))


def _pair(texts: Any) -> str:
    return " / ".join(texts)
