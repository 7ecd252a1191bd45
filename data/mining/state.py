"""The state of incremental mining: a private directory that keeps the evidence between days.

    STATE/manifest.json        the parameters with which every day is mined
    STATE/key                  the key of the hashes of users; random, made on first use, readable only by the owner
    STATE/days/2024-05-31.parquet   the supports and the searches of the day, with users as hashes
    STATE/scores/000001.parquet     the scores of the relevance discriminator (theta) for the candidate pairs of all
                                    days, each pair once
    STATE/discriminator        the discriminator, if one was fitted on the first day

Every file is written under a temporary name and then renamed, and a day is one file: a reader sees either the old or
the new version of a day. The next run removes temporary files that a killed run left.
"""

import contextlib
import datetime
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops_jax.artifacts import (
    MANIFEST,
    appears_whole,
    new_manifest,
    read_manifest,
    remove_temporaries,
    replaced_file,
    write_manifest,
)
from crops_jax.artifacts.json_fields import typed
from crops_jax.artifacts.lock import exclusive
from crops_jax.errors import InputError, one_line
from data.mining.day_files import KEY_BYTES
from data.mining.relevance.theta import FOLDER
from data.tables.days import parse_day

KIND = "mining_state"
_PRIVATE_FOLDER = 0o700
_REMEDY = "put the file back from a copy, or begin another state and mine its days again"


class MiningState:
    """The directory of a state, locked for this process. `open_state` creates it."""

    def __init__(self, path: Path, key: bytes):
        self.path, self.key = path, key
        self.discriminator = path / FOLDER

    @property
    def pins(self) -> dict[str, Any] | None:
        """The parameters with which every day is mined; None before the first day."""
        return read_manifest(self.path)["arguments"] if self.days() else None

    @property
    def name(self) -> str:
        """A random name, which distinguishes this state from others."""
        name = read_manifest(self.path).get("state")
        return typed(self.path / MANIFEST, "manifest.state", name, str, remedy=_REMEDY)

    def days(self) -> dict[datetime.date, Path]:
        """Returns the file of each day."""
        files = sorted((self.path / "days").glob("[0-9]*.parquet"))
        return {parse_day(file.stem, argument=f"{file}: its name"): file for file in files}

    def scores(self) -> list[Path]:
        return sorted((self.path / "scores").glob("[0-9]*.parquet"))

    def check_pins(self, pins: Mapping[str, Any]) -> None:
        """Raises InputError if the parameters differ from those of the days in the state."""
        kept = self.pins
        if kept is None:
            return
        different = [name for name in sorted(kept.keys() | pins.keys()) if kept.get(name) != pins.get(name)]
        if different:
            differences = ", ".join(
                f"{name.replace('_', '-')} {_pinned_text(kept.get(name))} and not {_pinned_text(pins.get(name))}"
                for name in different
            )
            raise InputError(
                f"--state {self.path} was begun with {differences}; give the same, or begin another state and mine its "
                "days again"
            )

    def pin(self, pins: Mapping[str, Any]) -> None:
        """Writes the parameters with which every day is mined. It is called only before the first day."""
        manifest = new_manifest(program="data.mine", kind=KIND, arguments=pins, inputs={}, state=secrets.token_hex(16))
        write_manifest(self.path, manifest)

    def reset(self) -> None:
        """Removes the files of a run that did not finish its first day: its parameters can differ from the new ones."""
        for file in self.scores():
            file.unlink()
        shutil.rmtree(self.discriminator, ignore_errors=True)

    @contextlib.contextmanager
    def new_discriminator(self) -> Iterator[Path]:
        """Yields a temporary folder for the discriminator, which is renamed when the block ends without an error."""
        with appears_whole(self.discriminator) as temporary:
            yield temporary

    @contextlib.contextmanager
    def replaced_day(self, day: datetime.date) -> Iterator[Path]:
        """Yields a temporary file for a day, which replaces the old file when the block ends without an error."""
        with replaced_file(self.path / "days" / f"{day}.parquet", private=True) as file:
            yield file

    @contextlib.contextmanager
    def more_scores(self) -> Iterator[Path]:
        """Yields a temporary file for more scores, which is renamed when the block ends without an error."""
        files = self.scores()
        number = int(files[-1].stem) + 1 if files else 1
        with replaced_file(self.path / "scores" / f"{number:06d}.parquet", private=True) as file:
            yield file

    def drop_scores(self, files: list[Path]) -> None:
        for file in files:
            file.unlink()

    def forget_before(self, day: datetime.date) -> list[datetime.date]:
        """Removes the days before `day`, and returns them."""
        gone = [kept for kept in self.days() if kept < day]
        for kept in gone:
            (self.path / "days" / f"{kept}.parquet").unlink()
        return gone


@contextlib.contextmanager
def open_state(path: Path | str) -> Iterator[MiningState]:
    """Opens a state, or creates one in an empty or new directory, and locks it against other processes.

    Raises:
      InputError: the directory holds other files, its key is missing, or another process works in it.
    """
    path = Path(path)
    _check_ours(path)
    path.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
    path.chmod(_PRIVATE_FOLDER)
    with exclusive(path / "lock", refusal=f"--state {path}: another process works in it; wait until it has ended"):
        remove_temporaries(path)
        for folder in (path / "days", path / "scores"):
            folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
            remove_temporaries(folder)
        state = MiningState(path, _key(path))
        if not state.days():
            state.reset()
        yield state


@contextlib.contextmanager
def named_damage(state: MiningState) -> Iterator[None]:
    """Turns an error of reading Parquet into InputError if a file of the state is damaged; other errors are raised."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        for file in [*state.days().values(), *state.scores()]:
            try:
                pq.read_table(file)
            except (pa.ArrowException, OSError) as found:
                raise InputError(f"{file} is damaged, it cannot be read ({one_line(found)}); {_REMEDY}") from error
        raise


def _check_ours(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"--state {path} is a file, not a directory; choose another place")
    names = {file.name for file in path.iterdir()} if path.exists() else set()
    if (path / MANIFEST).exists() and (kind := read_manifest(path)["kind"]) != KIND:
        raise InputError(f"--state {path} holds {kind}, not the state of data.mine; choose another place")
    # A run that was killed early leaves a lock and a key without a manifest.
    if not {"lock", MANIFEST} & names and names:
        raise InputError(f"--state {path} holds files that data.mine did not write; choose another place")


def _key(path: Path) -> bytes:
    file = path / "key"
    if not file.exists():
        if any((path / "days").glob("[0-9]*.parquet")):
            raise InputError(
                f"{file} is missing, so users of its days cannot be distinguished from those of other days; put "
                "it back, or begin another state and mine its days again"
            )
        with replaced_file(file, private=True) as new:
            new.write_bytes(secrets.token_bytes(KEY_BYTES))
    key = file.read_bytes()
    if len(key) != KEY_BYTES:
        raise InputError(f"{file} holds {len(key)} bytes and not {KEY_BYTES}; put the state's own key back")
    return key


def _pinned_text(value: Any) -> str:
    return "none" if value is None else str(value)
