"""The arguments of launch.compare, and the settings that follow from them."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.storage import InputPath, LocalPath, OtherFlags
from data.world.presets import PRESETS, named_by
from launch.comparison.real.settings import RealSet, real_set
from launch.steps.arguments import words_of

_LARGE_WORLD = "--world large"
_FAST_WORLD = "--documents 400 --queries 150 --users 400"


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    """The arguments of launch.compare."""

    output: LocalPath
    """TABLE, the directory for all outputs. A second call with the same arguments continues the first. A call with
    other --systems or more --seeds adds to the table."""
    results: LocalPath = ""
    """The folder of the results of finished cells, which may be committed. Cells whose result there was made from the
    present inputs are not run. One comparison at a time can use it. The default is TABLE/results."""
    from_results: bool = False
    """Makes the tables and the page of --results alone: no world, no labels and no training."""
    fast: bool = False
    """Takes a small world, two seeds and few steps, to try everything out within 15 minutes. Its figures mean little.
    """
    systems: str = ""
    """The systems to train, separated by commas. The default is all of them."""
    seeds: int | None = None
    """The number of seeds of each system. The default is 3 for the systems of the paper's tables and of the ablations,
    and 2 for the others. With --fast it is 2 for all, and with --real 3."""
    logs: InputPath = ""
    """Log tables to compare on, instead of a generated world; --from is needed with it."""
    from_time: Annotated[str, tyro.conf.arg(name="from")] = ""
    """The start of the test period of --logs (ISO 8601; UTC if it has no offset)."""
    real: str = ""
    """The public data set whose log tables are --logs: bestbuy, trec_session, homedepot, icecat or scifact. Its
    settings decide the test part, the labels, the batches and the tuning grid, and its systems include BM25 and
    sentence-transformers. --weights is needed with it."""
    weights: InputPath = ""
    """The folder of the encoder that every system of --real starts from, such as that of MiniLM-L6."""
    world: OtherFlags | None = None
    """Further flags of data.simulate, in one string. The default is "--world large", or a small world with --fast."""
    transformer: LocalPath | None = None
    """The base configuration of the transformer towers: a module of configs/, or a path to one. The default is
    generated_world for the large world, and tiny_cpu for others, with --logs and with --fast."""
    hashed: LocalPath | None = None
    """The base configuration of the towers of hashed IDs. The default is generated_world_hashed for the large world,
    and tiny_hashed for others, with --logs and with --fast."""
    steps: int | None = None
    """The number of training steps of every system. The default is 1000, or 30 with --fast. With --real, the default
    follows from the number of pairs, and it is the number of the systems that learn from pairs."""
    learning_rate_factors: tuple[float, ...] | None = None
    """The tuning grid of every system: multiples of the learning rate of the base configuration. The one with the best
    recall on the dev split at the first seed is used for all seeds. The default is one multiple, 1, so that systems
    differ by their labels and losses alone; with --real it is the grid of the data set."""
    discriminator: Literal["lexical", "cross_encoder"] = "lexical"
    """The relevance discriminator (theta), which decides which documents become positives."""
    discriminator_flags: OtherFlags = ""
    """Further flags of launch.train_discriminator, in one string."""
    warm_start: Literal["catalogue", "none"] | None = None
    """With "catalogue", an encoder of each architecture is first trained on pairs of titles and documents
    (data.pretraining_pairs). Every system then starts from it, and the one of the transformer towers also gives the
    similarity of two queries in mining. The default is catalogue for the large world, and none for others,
    with --logs and with --fast."""
    warm_start_flags: OtherFlags | None = None
    """Further flags of launch.train for the encoders that every system starts from, in one string. For the
    large world it is by default 5 epochs with 128 pairs in a batch."""
    mine_flags: OtherFlags = ""
    """Further flags of data.mine for every system, in one string."""
    records_flags: OtherFlags = ""
    """Further flags of data.write_records for every system, in one string."""
    evaluate_flags: OtherFlags = ""
    """Further flags of launch.evaluate for every system, in one string."""
    reference: str = ""
    """The system that all others are compared with, each with the one of its own architecture. The default is crops,
    or graded with --real."""
    bootstrap_samples: int = 100_000
    """The number of bootstrap samples of each interval."""
    keep: Literal["runs", "all"] = "runs"
    """The files of a finished cell that are kept: its run, or also its evaluation with the index."""
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("logs", "from_time", "real", "world", "weights"),
        "output": ("output", "results", "from_results", "keep"),
        "comparison": ("fast", "systems", "seeds", "reference", "bootstrap_samples"),
        "training": ("transformer", "hashed", "steps", "learning_rate_factors", "discriminator", "warm_start"),
        "advanced": ("discriminator_flags", "warm_start_flags", "mine_flags", "records_flags", "evaluate_flags"),
    }

    def __post_init__(self) -> None:
        self._check_real()
        if not self.real and bool(self.logs) != bool(self.from_time):
            raise InputError("--logs and --from go together: the logs, and the time at which their test period starts")
        if self.logs and self.world is not None:
            raise InputError("--world is for a generated world; leave it out with --logs")
        budget = budget_of(self)
        if self.discriminator_flags and self.discriminator == "lexical":
            raise InputError("--discriminator-flags are of a cross-encoder: give --discriminator cross_encoder too")
        if self.warm_start_flags and not budget.warm_start:
            raise InputError(
                "--warm-start-flags are of the encoders that every system starts from: give --warm-start catalogue too"
            )
        for flag, value in (
            ("seeds", self.seeds),
            ("steps", self.steps),
            ("bootstrap-samples", self.bootstrap_samples),
        ):
            if value is not None and value < 1:
                raise InputError(f"--{flag} must be at least 1, found {value}")
        factors = self.learning_rate_factors
        if factors is not None and (not factors or len(set(factors)) < len(factors) or min(factors) <= 0):
            raise InputError(f"--learning-rate-factors must be positive and all different, found {factors}")

    def _check_real(self) -> None:
        if not self.real:
            if self.weights:
                raise InputError("--weights goes with --real; elsewhere --transformer names the configuration")
            return
        real_set(self.real)
        if not self.logs:
            raise InputError(f"--real {self.real} needs --logs, the log tables that data.convert wrote")
        if not self.weights:
            raise InputError(
                f"--real {self.real} needs --weights, the folder of the encoder that every system starts from"
            )
        refused = {
            "--from": self.from_time,
            "--world": self.world,
            "--transformer": self.transformer,
            "--hashed": self.hashed,
            "--warm-start": self.warm_start == "catalogue",
        }
        if given := [flag for flag, value in refused.items() if value]:
            raise InputError(f"{' and '.join(given)} cannot be given with --real, whose settings decide this")

    @property
    def real_settings(self) -> RealSet | None:
        """Returns the settings of --real, or None without it."""
        return real_set(self.real) if self.real else None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The settings that all systems share: the world, towers, first weights, seeds, steps and the tuning grid."""

    world: OtherFlags
    transformer: str
    hashed: str
    warm_start: bool
    warm_start_flags: OtherFlags
    seeds: int | None
    """The number of seeds of every system. None: that of `System.seeds`."""
    steps: int
    """The number of training steps. 0: the number that the epochs of a real data set take."""
    learning_rate_factors: tuple[float, ...]


_WARM_START_FLAGS = "--data.documents-per-query 1 --data.queries-per-batch 128 --training.epochs 5"


def budget_of(arguments: CompareArguments) -> Budget:
    """Returns the budget of a call, in which defaults are filled in."""
    small, real = arguments.fast, arguments.real_settings
    world = _LARGE_WORLD if arguments.world is None else arguments.world
    generated = not small and not arguments.logs and named_by(words_of(world)) is PRESETS["large"]
    warm_start = (arguments.warm_start or ("catalogue" if generated else "none")) == "catalogue"
    defaults: dict[str, Any] = {
        "world": _FAST_WORLD if small else _LARGE_WORLD,
        "transformer": "generated_world" if generated else "tiny_cpu",
        "hashed": "generated_world_hashed" if generated else "tiny_hashed",
        "warm_start_flags": _WARM_START_FLAGS if generated and warm_start else "",
        "seeds": 2 if small else None,
        "steps": 30 if small else 0 if real else 1000,
        "learning_rate_factors": real.learning_rate_factors if real else (1.0,),
    }
    given = {name: getattr(arguments, name) for name in defaults}
    chosen = defaults | {name: value for name, value in given.items() if value is not None}
    return Budget(warm_start=warm_start, **chosen)


_NOT_IDENTIFYING = {"results", "from_results", "fast", "systems", "reference", "bootstrap_samples", "keep"}
"""The arguments that a later call on the same TABLE can change."""
_REAL = {"real", "weights"}


def identifying(arguments: CompareArguments) -> dict[str, Any]:
    """Returns the arguments that are the same for all cells of a TABLE, with defaults filled in.

    The systems and the number of seeds are none of them, because a table can be finished on another day.
    """
    settled = vars(arguments) | vars(budget_of(arguments))
    named = {name: value for name, value in settled.items() if name not in {*_NOT_IDENTIFYING, "seeds"}}
    # Tables of earlier versions have no --real and --weights.
    return named if arguments.real else {name: value for name, value in named.items() if name not in _REAL}


_FOLDERS = {"output": "TABLE", "results": "RESULTS", "logs": "LOGS", "weights": "WEIGHTS"}
"""The arguments that name folders of this machine, and what stands for them elsewhere."""


def without_paths(arguments: CompareArguments) -> dict[str, Any]:
    """Returns the arguments that all cells share, without the folders of this machine, as a committed file has them."""
    shared = {**identifying(arguments), "fast": arguments.fast}
    return {name: _portable(name, value) for name, value in shared.items() if name != "output"}


def command_of(arguments: CompareArguments) -> str:
    """Returns the command line of all systems, with TABLE, RESULTS and LOGS for the folders of this machine."""
    words = ["python", "-m", "launch.compare"]
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if value == field.default or field.name in ("systems", "from_results", "keep"):
            continue
        words.append("--from" if field.name == "from_time" else f"--{field.name.replace('_', '-')}")
        values = value if isinstance(value, tuple) else () if value is True else (_portable(field.name, value),)
        words += [str(one) if isinstance(one, str) else f"{one:g}" for one in values]
    return shlex.join(words)


def _portable(name: str, value: Any) -> Any:
    """Returns an argument without the folders of this machine."""
    if name in _FOLDERS:
        return _FOLDERS[name] if value else value
    is_file = name in ("transformer", "hashed") and Path(value).is_absolute()
    return Path(value).name if is_file else value
