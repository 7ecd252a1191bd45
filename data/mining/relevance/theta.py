"""The choice of the relevance discriminator (theta): a given one, the one in the logs, or a lexical one fitted here."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crops_jax import discriminator
from crops_jax.artifacts import fingerprint, read_manifest, write_text
from crops_jax.artifacts.json_fields import read_object
from crops_jax.artifacts.lineage import Manifest, input_fingerprint, input_manifest, manifest_or_none
from crops_jax.discriminator import Discriminator, LexicalDiscriminator
from crops_jax.discriminator.lexical_features import CorpusStatistics
from crops_jax.discriminator.populations import NAMES
from crops_jax.errors import InputError
from data.backends.connection import Connection
from data.mining.parameters import ReformulationParameters
from data.mining.relevance.training_pairs import NothingToFit, TrainingPairs, published_before, texts_of, training_pairs
from data.perspectives.log_events import LogEvents, parse_time
from data.tables import LogTables

FITTED = "fitted.json"
"""The file beside every discriminator that describes the data on which it was fitted."""

FOLDER = "discriminator"
"""The folder in a directory of log tables that keeps the discriminator fitted on them."""


_SPLIT_ARGUMENTS = ("from_", "fraction", "by", "seed")
"""The arguments of data.hold_out that decide what is held out."""


class Theta(NamedTuple):
    """A relevance discriminator, and a description of its fitting: the fields of `Fitted`."""

    discriminator: Discriminator
    fitted: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """The content of fitted.json."""

    kind: str
    source: str
    """The source of the pairs; one of the constants in data.mining.relevance.training_pairs."""
    relevant_grade: float | None
    """The minimum grade of a relevant judgement; None if the pairs are not judgements."""
    pairs: int
    populations: dict[str, int]
    """The number of pairs of each population; see crops_jax.discriminator.populations."""
    ece_before: float
    ece_after: float
    calibrated_on: str
    latest_time: str | None
    """The time of the latest search that was read, ISO 8601; None if only judgements were read."""
    unsplit_judgements: int
    """The number of judgements without a split that were read."""


def fit_theta(
    connection: Connection,
    logs: LogTables,
    events: LogEvents,
    *,
    until: datetime.datetime | None = None,
    relevant_grade: float | None = None,
    seed: int = 0,
) -> Theta:
    """Fits a lexical discriminator on judgements of split train or, if these are missing, on the clicks of `events`.

    Documents published at `until` or later are not read. `relevant_grade` is that of `training_pairs`. Raises
    NothingToFit if the logs have no pairs to learn from.
    """
    pairs = training_pairs(connection, logs, events, until=until, relevant_grade=relevant_grade, seed=seed)
    if len(np.unique(pairs.targets)) < 2:
        raise NothingToFit(
            f"there is nothing to fit a discriminator on: {len(pairs.targets)} pairs, and none among them that does "
            "not answer its query; add judgements of several grades or more documents, or name a --discriminator"
        )
    corpus = CorpusStatistics.from_texts(texts_of(connection, published_before(connection, until)))
    fitted = LexicalDiscriminator.fit(
        pairs.queries, pairs.documents, pairs.targets, corpus=corpus, populations=pairs.populations
    )
    return theta_of("lexical", fitted, pairs, report=fitted.report)


def theta_of(kind: str, fitted: Discriminator, pairs: TrainingPairs, *, report: Mapping[str, Any]) -> Theta:
    """Returns a fitted discriminator with the description of its fitting.

    Args:
      kind: the kind of the discriminator.
      fitted: the discriminator.
      pairs: the pairs on which it was fitted.
      report: ece_before, ece_after (the expected calibration error before and after calibration) and calibrated_on.
    """
    latest = pairs.latest_time
    about = Fitted(
        kind=kind,
        source=pairs.source,
        relevant_grade=pairs.relevant_grade,
        pairs=len(pairs.queries),
        populations={name: int((pairs.populations.index == at).sum()) for at, name in enumerate(NAMES)},
        ece_before=report["ece_before"],
        ece_after=report["ece_after"],
        calibrated_on=report["calibrated_on"],
        latest_time=None if latest is None else latest.astimezone(datetime.UTC).isoformat(),
        unsplit_judgements=pairs.unsplit_judgements,
    )
    return Theta(fitted, dataclasses.asdict(about))


def save_theta(theta: Theta, folder: Path) -> None:
    """Writes the discriminator and fitted.json."""
    theta.discriminator.save(folder)
    write_text(folder / FITTED, json.dumps(theta.fitted, indent=2, ensure_ascii=False) + "\n")


def open_theta(folder: Path | str) -> Theta:
    """Reads the discriminator of a folder and its fitted.json. Raises InputError if either cannot be read."""
    loaded = discriminator.load(folder)
    file = Path(folder) / FITTED
    remedy = "nobody can say that the discriminator did not read the test period: fit it again"
    fitted = read_object(file, remedy=remedy)
    for name in (field.name for field in dataclasses.fields(Fitted)):
        if name not in fitted:
            raise InputError(f"{file}: {name} is missing; {remedy}")
    latest = fitted["latest_time"]
    try:
        if latest is not None and datetime.datetime.fromisoformat(latest).tzinfo is None:
            raise ValueError("no time zone")
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: latest_time {latest!r} is no time in UTC ({error}); {remedy}") from error
    return Theta(loaded, fitted)


def choose_theta(
    connection: Connection,
    logs: LogTables,
    events: LogEvents,
    *,
    named: str | None,
    until: datetime.datetime | None,
    parameters: ReformulationParameters,
) -> tuple[Theta, dict[str, Any]]:
    """Returns the discriminator to use, and for the outcome a description with its origin.

    The discriminator is the given one, else the one in LOGS, else a lexical one that is fitted here.

    Args:
      connection, logs, events: the data on which a new discriminator is fitted.
      named: the folder of --discriminator; None if the flag was not given.
      until: the discriminator must not have read events at this time or later.
      parameters: the minimum grade of a relevant judgement, and the seed of the random documents, for a new
        discriminator.

    Raises:
      InputError: the given discriminator cannot be read, or read events at `until` or later.
    """
    kept = logs.path / FOLDER
    why = "no discriminator was given or kept in the logs"
    if named is not None:
        theta = open_theta(named)
        refuse_later(theta, named, until, argument="--until")
        return theta, {"from": "--discriminator", **theta.fitted}
    if kept.is_dir():
        theta = open_theta(kept)
        if not reads_past(theta, until):
            return theta, {"from": f"LOGS/{FOLDER}", **theta.fitted}
        why = f"LOGS/{FOLDER} read searches past --until"
    theta = fit_theta(
        connection, logs, events, until=until, relevant_grade=parameters.relevant_grade, seed=parameters.seed
    )
    return theta, {"from": f"fitted here, since {why}", **theta.fitted}


def reads_past(theta: Theta, time: datetime.datetime | None) -> bool:
    """Returns whether a discriminator was fitted on searches at `time` or later."""
    latest = theta.fitted["latest_time"]
    return time is not None and latest is not None and datetime.datetime.fromisoformat(latest) >= time


def refuse_later(theta: Theta, folder: Path | str, time: datetime.datetime | None, *, argument: str) -> None:
    """Raises InputError if a discriminator was fitted on searches at `time` or later."""
    if time is not None and reads_past(theta, time):
        raise InputError(
            f"--discriminator {folder} read searches up to {theta.fitted['latest_time']}, not before {argument} "
            f"{time.isoformat()}; fit one on what happened before, or leave it out to have that done here"
        )


def refuse_other_split(folder: Path | str, logs: LogTables, split: dict[str, Any]) -> None:
    """Raises InputError unless a discriminator was fitted on the training part of the same hold-out.

    Args:
      folder: the folder of the discriminator.
      logs: the logs that are divided.
      split: the arguments that decide which part is held out.
    """
    if not fitted_on_split(folder, fingerprint(logs.path), split):
        raise InputError(
            f"--discriminator {folder} was not fitted on the training part of this hold-out, so it may have seen what "
            f"is held out; fit one on a directory that data.hold_out wrote from {logs.path} with the same arguments, "
            "or leave it out to have that done here"
        )


def refuse_seen_answers(theta: Theta, folder: Path | str, split: Path | str, *, argument: str) -> None:
    """Raises InputError if a discriminator was fitted on what a SPLIT of data.hold_out holds out.

    A directory without a manifest, or of another program, holds nothing out.

    Args:
      theta: the discriminator.
      folder: its folder.
      split: the directory of log tables.
      argument: the flag that named the folder, for the message.
    """
    manifest = manifest_or_none(split)
    if manifest is None or manifest["program"] != "data.hold_out":
        return
    begin = manifest["arguments"].get("from_")
    time = parse_time(begin, argument="--from") if begin else None
    decided = {name: manifest["arguments"].get(name) for name in _SPLIT_ARGUMENTS}
    later = reads_past(theta, time)
    unknown = time is None or theta.fitted["unsplit_judgements"]
    if later or (unknown and not fitted_on_split(folder, input_fingerprint(manifest, "logs"), decided)):
        reason = f"read searches up to {theta.fitted['latest_time']}" if later else "may have read what is held out"
        raise InputError(
            f"{argument} {folder} {reason}, so it knows answers of the test; fit one on {split} "
            f"(launch.train_discriminator --logs), or take the one that is kept in {split}/{FOLDER}"
        )


def fitted_on_split(folder: Path | str, logs: str | None, split: dict[str, Any]) -> bool:
    """Returns whether a discriminator was fitted on the training part of a hold-out, as manifests tell.

    Args:
      folder: the folder of the discriminator.
      logs: the fingerprint of the logs that are divided.
      split: the arguments that decide which part is held out.
    """
    source = _split_manifest(folder)
    return (
        source is not None
        and input_fingerprint(source, "logs") == logs
        and all(source["arguments"].get(name) == value for name, value in split.items())
    )


def _split_manifest(folder: Path | str) -> Manifest | None:
    """Returns the manifest of the data.hold_out that fitted a discriminator, or on whose output it was fitted."""
    manifest = read_manifest(folder)
    links = (manifest, input_manifest(manifest, "logs"))
    return next((link for link in links if link and link["program"] == "data.hold_out"), None)
