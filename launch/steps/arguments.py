"""The arguments of launch.pipeline, and what they say in words of other programs."""

import shlex
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from crops_jax import program
from crops_jax.errors import InputError
from crops_jax.program.help_rules import FlagGroups
from crops_jax.storage import InputPath, LocalPath, OtherFlags
from data.tables import OnBadRows

ARMS: dict[str, tuple[str, ...] | None] = {
    "search_log": ("search_log",),
    "query_level": ("search_log", "query_level"),
    "system_level": ("search_log", "system_level"),
    "knowledge_level": ("search_log", "knowledge_level"),
    "cross_perspective": None,
}
"""The perspectives that each arm mines; None means every perspective whose tables are present."""


@dataclass(frozen=True, kw_only=True)
class PipelineArguments:
    logs: InputPath
    """The directory of log tables in Parquet."""
    output: LocalPath
    """WORK, the directory for all outputs. A second call with the same arguments continues the first."""
    from_time: Annotated[str, tyro.conf.arg(name="from")] = ""
    """Hold out the events at this time or later (ISO 8601; UTC if it has no offset)."""
    fraction: float = 0.0
    """The share of the groups to hold out; it is needed with --by group."""
    by: str = ""
    """With "group", whole groups (a topic, a session) are held out instead of a period. With "split", the split of the
    judgements decides."""
    arms: str = "search_log,cross_perspective"
    """The arms, separated by commas. An arm is one system of the comparison: a set of labels, and the encoder that is
    trained on it. The arms are search_log, query_level, system_level, knowledge_level and cross_perspective, which has
    all perspectives."""
    tokenizer: InputPath = ""
    """The folder of a Hugging Face tokenizer. The default is that of --encoder.weights, or else one that is learnt from
    the documents."""
    on_bad_rows: OnBadRows = "fail"
    """With "quarantine", rows of the logs that break a rule are left out, counted, and written to
    WORK/split.quarantine."""
    hold_out_flags: OtherFlags = ""
    """Further flags of data.hold_out, in one string."""
    discriminator: Literal["lexical", "cross_encoder"] = "lexical"
    """The relevance discriminator (theta), which gives the probability that a document answers a query and so decides
    which documents become positives. With "cross_encoder", one is trained on the part that is not held out, and then
    the hold-out is made again with it."""
    discriminator_flags: OtherFlags = ""
    """Further flags of launch.train_discriminator, in one string."""
    warm_start: bool = False
    """First trains an encoder on pairs of titles and documents of the catalogue (data.pretraining_pairs), from which
    every arm then starts. It is for encoders without --encoder.weights."""
    warm_start_flags: OtherFlags = ""
    """Further flags of launch.train for the encoder that every arm starts from, in one string, such as
    "--training.epochs 5"."""
    mine_flags: OtherFlags = ""
    """Further flags of data.mine for every arm, in one string."""
    records_flags: OtherFlags = ""
    """Further flags of data.write_records, in one string."""
    evaluate_flags: OtherFlags = ""
    """Further flags of launch.evaluate, in one string."""
    config: program.ConfigArgument
    FLAG_GROUPS: ClassVar[FlagGroups] = {
        "input": ("logs", "from_time", "fraction", "by", "tokenizer", "on_bad_rows"),
        "output": ("output",),
        "system": ("arms", "discriminator", "warm_start"),
        "advanced": (
            "hold_out_flags",
            "discriminator_flags",
            "warm_start_flags",
            "mine_flags",
            "records_flags",
            "evaluate_flags",
        ),
    }


def check(arguments: PipelineArguments) -> None:
    """Raises InputError when arguments do not go together."""
    if arguments.discriminator_flags and arguments.discriminator == "lexical":
        raise InputError("--discriminator-flags are of a cross-encoder: give --discriminator cross_encoder too")
    if arguments.warm_start_flags and not arguments.warm_start:
        raise InputError("--warm-start-flags are of the encoder that every arm starts from: give --warm-start too")
    if arguments.warm_start and arguments.config.encoder.weights:
        raise InputError(
            "--warm-start and --encoder.weights both say what every arm starts from; leave one of them out"
        )
    if bool(arguments.from_time) == bool(arguments.by):
        raise InputError("say what to hold out: --from TIME, or --fraction F --by group, or --by split")


def words_of(text: str) -> tuple[str, ...]:
    """Returns the words of a string of flags. Raises InputError when it cannot be split, as by a missing quote."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"flags {text!r} cannot be split into words: {error}") from error


def named_arms(arguments: PipelineArguments) -> list[str]:
    """Returns the names of the arms. Raises InputError when one is unknown or repeated, or when there is none."""
    arms = [arm.strip() for arm in arguments.arms.split(",") if arm.strip()]
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or not arms or len(set(arms)) < len(arms):
        raise InputError(f"--arms {arguments.arms!r}: name some of {', '.join(ARMS)}, each once")
    return arms
