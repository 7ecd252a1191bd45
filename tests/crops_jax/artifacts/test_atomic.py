"""One file that is replaced: whole or as it was, on disk before it has its name, and private where it must be."""

import os
import stat
import subprocess
import sys

import pytest

from crops_jax.artifacts import appears_whole, remove_temporaries, replaced_file
from crops_jax.errors import InputError
from tests.paths import ROOT


def test_the_old_file_is_seen_until_the_block_ends(tmp_path):
    file = tmp_path / "scores.parquet"
    file.write_bytes(b"old")
    with replaced_file(file) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == tmp_path
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_the_bytes_are_on_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        function = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *given, name=name, function=function: (calls.append(name), function(*given))
        )
    with replaced_file(tmp_path / "key") as temporary:
        temporary.write_bytes(b"new")
    assert calls == ["fsync", "replace"]


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_block_that_fails(tmp_path, error, private):
    file = tmp_path / "scores.parquet"
    file.write_bytes(b"old")

    def failing():
        with replaced_file(file, private=private) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        failing()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_block_that_wrote_nothing_is_a_mistake(tmp_path):
    with pytest.raises(FileNotFoundError), replaced_file(tmp_path / "key"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_private_file_is_never_readable_by_others(tmp_path):
    old = tmp_path / "key"
    old.write_bytes(b"old")
    old.chmod(0o644)
    with replaced_file(old, private=True) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_bytes(b"secret")
    assert stat.S_IMODE(old.stat().st_mode) == 0o600


def test_two_may_write_one_file_at_once(tmp_path):
    file = tmp_path / "shard"
    with replaced_file(file) as one, replaced_file(file) as other:
        assert one != other
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert file.read_bytes() == b"one"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from crops_jax.artifacts import appears_whole, replaced_file\n"
        "root = Path(sys.argv[1])\n"
        "with replaced_file(root / 'key') as file, appears_whole(root / 'tokenizer') as folder:\n"
        "    file.write_bytes(b'half')\n"
        "    (folder / 'tokenizer.json').write_text('half')\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT).returncode == 9
    (tmp_path / "answers.jsonl").write_text("paid for")
    (tmp_path / ".lock").touch()
    assert len(list(tmp_path.iterdir())) == 4
    remove_temporaries(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "answers.jsonl"]


def test_a_directory_that_another_process_wrote_in_the_meantime_is_kept_and_named(tmp_path):
    output = tmp_path / "labels"

    def overtaken():
        with appears_whole(output) as temporary:
            (temporary / "file").write_text("second")
            output.mkdir()
            (output / "file").write_text("first")

    with pytest.raises(InputError, match="labels exists now: another process wrote it"):
        overtaken()
    assert (output / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [output]
