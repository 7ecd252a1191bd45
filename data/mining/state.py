"""What incremental mining remembers between days: a private directory.

    STATE/manifest.json        the parameters that every day is mined with
    STATE/key                  of the hashes of users; random, made on first use, readable by the owner alone
    STATE/days/2024-05-31.parquet   the day's supports, by user's hash, and who searched
    STATE/scores/000001.parquet     theta of every candidate pair of any day, each once
    STATE/discriminator        where one was fitted here, on the first day

Every file is written under a temporary name and renamed, and a day is one file: a reader sees a day as it was or as it
is. Whatever a killed run left under a temporary name is removed by the next one.
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
from data.mining.theta import FOLDER
from data.tables.days import parse_day

KIND = "mining_state"
_PRIVATE_FOLDER = 0o700
_REMEDY = "put the file back from a copy, or begin another state and mine its days again"


class MiningState:
    """The directory, locked for this process. Made by `open_state`."""

    def __init__(self, path: Path, key: bytes):
        self.path, self.key = path, key
        self.discriminator = path / FOLDER

    @property
    def pins(self) -> dict[str, Any] | None:
        """What every day is mined with; None before the first day is there."""
        return read_manifest(self.path)["arguments"] if self.days() else None

    @property
    def name(self) -> str:
        """A random name of this state, which tells it from others and of nothing else."""
        name = read_manifest(self.path).get("state")
        return typed(self.path / MANIFEST, "manifest.state", name, str, remedy=_REMEDY)

    def days(self) -> dict[datetime.date, Path]:
        """The file of each day, by day."""
        files = sorted((self.path / "days").glob("[0-9]*.parquet"))
        return {parse_day(file.stem, argument=f"{file}: its name"): file for file in files}

    def scores(self) -> list[Path]:
        return sorted((self.path / "scores").glob("[0-9]*.parquet"))

    def check_pins(self, pins: Mapping[str, Any]) -> None:
        """Raises InputError where a day would be mined otherwise than those that are there."""
        kept = self.pins
        if kept is None:
            return
        different = [name for name in sorted(kept.keys() | pins.keys()) if kept.get(name) != pins.get(name)]
        if different:
            told = ", ".join(
                f"{name.replace('_', '-')} {_told(kept.get(name))} and not {_told(pins.get(name))}"
                for name in different
            )
            raise InputError(
                f"--state {self.path} was begun with {told}; give the same, or begin another state and mine its days "
                "again"
            )

    def pin(self, pins: Mapping[str, Any]) -> None:
        """Keeps what every day is mined with. Only before the first day."""
        manifest = new_manifest(program="data.mine", kind=KIND, arguments=pins, inputs={}, state=secrets.token_hex(16))
        write_manifest(self.path, manifest)

    def reset(self) -> None:
        """Removes what a run that did not finish its first day may have left: it holds for other parameters."""
        for file in self.scores():
            file.unlink()
        shutil.rmtree(self.discriminator, ignore_errors=True)

    @contextlib.contextmanager
    def new_discriminator(self) -> Iterator[Path]:
        """A place for the discriminator that is fitted here."""
        with appears_whole(self.discriminator) as temporary:
            yield temporary

    @contextlib.contextmanager
    def replaced_day(self, day: datetime.date) -> Iterator[Path]:
        """A place for the new file of a day, which takes the place of the old one when the block ends well."""
        with replaced_file(self.path / "days" / f"{day}.parquet", private=True) as file:
            yield file

    @contextlib.contextmanager
    def more_scores(self) -> Iterator[Path]:
        """A place for one more file of scores."""
        files = self.scores()
        number = int(files[-1].stem) + 1 if files else 1
        with replaced_file(self.path / "scores" / f"{number:06d}.parquet", private=True) as file:
            yield file

    def drop_scores(self, files: list[Path]) -> None:
        for file in files:
            file.unlink()

    def forget_before(self, day: datetime.date) -> list[datetime.date]:
        """Removes the days before one, and tells which."""
        gone = [kept for kept in self.days() if kept < day]
        for kept in gone:
            (self.path / "days" / f"{kept}.parquet").unlink()
        return gone


@contextlib.contextmanager
def open_state(path: Path | str) -> Iterator[MiningState]:
    """Opens a state, or begins one in an empty or new directory, and keeps other processes out of it.

    Raises:
      InputError: the directory holds something else, its key is gone, or another process works in it.
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
    """Turns errors of reading Parquet into InputError where a file of the state is damaged; other errors pass."""
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
                f"{file} is missing, so users of the days that are there cannot be told from those of other days; put "
                "it back, or begin another state and mine its days again"
            )
        with replaced_file(file, private=True) as new:
            new.write_bytes(secrets.token_bytes(KEY_BYTES))
    key = file.read_bytes()
    if len(key) != KEY_BYTES:
        raise InputError(f"{file} holds {len(key)} bytes and not {KEY_BYTES}; put the state's own key back")
    return key


def _told(value: Any) -> str:
    return "none" if value is None else str(value)
