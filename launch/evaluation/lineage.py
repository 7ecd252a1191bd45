"""The origin of an encoder and of a SPLIT, read from the manifests that each step carries along."""

from collections.abc import Iterable
from pathlib import Path

from crops_jax import artifacts
from crops_jax.artifacts.lineage import (
    Manifest,
    chain,
    input_fingerprint,
    input_manifest,
    manifest_or_none,
    read_from,
)
from crops_jax.errors import InputError
from data.perspectives.log_events import parse_time


def trained_on(run: str, split: str) -> bool | None:
    """Returns whether the labels of a run were mined from this SPLIT; None if its manifests name no logs.

    Raises:
      InputError: they were mined from the logs that SPLIT was cut from, with the test period in them.
    """
    manifest, split_manifest = manifest_or_none(run), manifest_or_none(split)
    mined = _mined_from(manifest)
    if not mined:
        return None
    _refuse_answers(mined, split_manifest, run=run, split=split)
    return {fingerprint for _, fingerprint in mined} == {artifacts.fingerprint(split)}


def refuse_seen_answers(embeddings: str, labels: str) -> None:
    """Raises InputError when the run that EMBEDDINGS are of has seen the test period of the SPLIT of LABELS.

    Its neighbours would carry the answers into what is trained next. Where manifests are missing nothing is refused.
    """
    run, logs = input_manifest(manifest_or_none(embeddings), "run"), read_from(manifest_or_none(labels), "logs")
    if logs:
        split = f"the SPLIT that {labels} were mined from"
        _refuse_answers(_mined_from(run), logs[1], run=f"the run of {embeddings}", split=split)


def _mined_from(manifest: Manifest | None) -> list[tuple[Manifest, str]]:
    """The label tables that something goes back to, each with the fingerprint of its logs.

    Labels of data.pretraining_pairs stand for the logs whose documents became pairs: the pairs take the place of the
    label table, because their --until decides whether something of a test period is in them.
    """
    labels = [_pairs_of(link) or link for link in chain(manifest) if link["kind"] == "labels"]
    return [(link, logs) for link in labels if (logs := input_fingerprint(link, "logs"))]


def _pairs_of(labels: Manifest) -> Manifest | None:
    """Returns the manifest of the pairs of data.pretraining_pairs that labels were made from; None for other labels."""
    logs = input_manifest(labels, "logs")
    return logs if logs and logs["program"] == "data.pretraining_pairs" else None


def _refuse_answers(
    mined: Iterable[tuple[Manifest, str]], split_manifest: Manifest | None, *, run: str, split: str
) -> None:
    source = input_fingerprint(split_manifest, "logs")
    for link, fingerprint in mined:
        if split_manifest and fingerprint == source and not _has_no_answer(link, split_manifest):
            raise InputError(
                f"{run} was trained on labels mined from the logs that {split} holds a test period of, so it has seen "
                f"the answers; mine from {split} (data.mine --logs), or with --until the time it begins"
            )


def programs_of(path: str | Path) -> set[str]:
    """The programs that a directory was made by, its inputs included; empty where there is no manifest."""
    return {link["program"] for link in chain(manifest_or_none(path))}


def _has_no_answer(labels: Manifest, split_manifest: Manifest) -> bool:
    """Returns whether mining the whole logs read nothing of what was held out of them."""
    arguments = split_manifest["arguments"]
    if arguments.get("by") == "split":  # only judgements of split = test are held out, which data.mine never reads
        return True
    until, begin = labels["arguments"].get("until"), arguments.get("from_")
    if not until or not begin:
        return False
    return parse_time(until, argument="--until") <= parse_time(begin, argument="--from")
