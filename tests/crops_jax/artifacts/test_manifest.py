import dataclasses
import errno
import sys

import pytest

from crops_jax import artifacts
from crops_jax.artifacts import atomic
from crops_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    logs: str
    output: str
    overwrite: bool = False
    alpha: float = 0.6


def write(path, text="one", *, overwrite=False, logs=None, alpha=0.6):
    arguments = Arguments(logs=str(logs), output=str(path), alpha=alpha)
    with artifacts.output_directory(
        path, overwrite=overwrite, program="data.mine", kind="labels", arguments=arguments, inputs={"logs": logs}
    ) as out:
        (out / "file.txt").write_text(text)


def test_a_directory_appears_whole_with_its_manifest(tmp_path):
    write(tmp_path / "logs")
    write(tmp_path / "labels", logs=tmp_path / "logs")
    manifest = artifacts.read_manifest(tmp_path / "labels")
    assert manifest["program"] == "data.mine"
    assert manifest["kind"] == "labels"
    assert manifest["arguments"] == {"alpha": 0.6}
    assert manifest["inputs"]["logs"]["fingerprint"] == artifacts.fingerprint(tmp_path / "logs")
    assert manifest["inputs"]["logs"]["manifest"]["kind"] == "labels"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels", "logs"]


def test_nothing_is_left_of_a_failed_write_and_the_old_one_stays(tmp_path):
    write(tmp_path / "labels", "old")
    with pytest.raises(TypeError):
        write(tmp_path / "labels", None, overwrite=True)
    assert (tmp_path / "labels" / "file.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["labels"]


@pytest.mark.parametrize("system", ["as it is", "without renameat2", "behind a link"])
def test_an_old_output_is_replaced_and_nothing_else_is_left(tmp_path, monkeypatch, system):
    if system == "without renameat2":
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    if system == "behind a link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "labels").symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "labels", "old", overwrite=True)
    write(tmp_path / "labels", "new", overwrite=True)
    assert (tmp_path / "labels" / "file.txt").read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} <= {"labels", "elsewhere"}
    assert (tmp_path / "labels").is_symlink() == (system == "behind a link")


def test_an_empty_directory_behind_a_link_is_written_to_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "labels").symlink_to("disk")
    write(tmp_path / "labels", "text")
    assert (tmp_path / "labels").is_symlink()
    assert (tmp_path / "disk" / "file.txt").read_text() == "text"
    assert {p.name for p in tmp_path.iterdir()} == {"disk", "labels"}


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_two_directories_swap_their_names_in_one_step(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, name)
    if not atomic._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot")
    assert [(tmp_path / name / "file.txt").read_text() for name in ("a", "b")] == ["b", "a"]
    assert not atomic._exchange(tmp_path / "a", tmp_path / "absent")


def test_a_directory_of_another_kind_is_never_replaced(tmp_path):
    manifest = artifacts.new_manifest(program="launch.train", kind="run", arguments={}, inputs={})
    artifacts.write_manifest(tmp_path, manifest)
    with pytest.raises(InputError, match="its kind is run, not labels, so it is not replaced"):
        write(tmp_path, overwrite=True)
    assert artifacts.read_manifest(tmp_path)["kind"] == "run"


def test_the_same_content_has_the_same_fingerprint_wherever_it_lies(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name)
    write(tmp_path / "c", "two")
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()
    assert artifacts.fingerprint(tmp_path / "a") != artifacts.fingerprint(tmp_path / "c")


def test_a_users_directory_is_fingerprinted_by_content(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "searches.parquet").write_bytes(b"1")
    before = artifacts.fingerprint(tmp_path / "logs")
    (tmp_path / "logs" / "searches.parquet").write_bytes(b"2")
    assert artifacts.fingerprint(tmp_path / "logs") != before


def test_overwriting_needs_the_flag_and_a_directory_of_ours(tmp_path):
    write(tmp_path / "labels")
    with pytest.raises(InputError, match="--overwrite"):
        write(tmp_path / "labels")
    write(tmp_path / "labels", "new", overwrite=True)
    assert (tmp_path / "labels" / "file.txt").read_text() == "new"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="not replaced"):
        write(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists()


@pytest.mark.parametrize("output", ["logs", "logs/labels", "."])
def test_output_may_not_overlap_an_input(tmp_path, output):
    write(tmp_path / "logs")
    with pytest.raises(InputError, match="overlap"):
        write(tmp_path / output, overwrite=True, logs=tmp_path / "logs")


def test_output_may_not_lie_in_a_users_tables_whose_fingerprint_it_would_change(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "searches.parquet").write_bytes(b"1")
    with pytest.raises(InputError, match="overlap"):
        write(tmp_path / "logs" / "labels", logs=tmp_path / "logs")
    assert [p.name for p in (tmp_path / "logs").iterdir()] == ["searches.parquet"]


def test_an_output_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"udcff' is not UTF-8"):
        write(tmp_path / "\udcff")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"program": 1}'])
def test_a_broken_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        artifacts.read_manifest(tmp_path)


def test_a_manifest_of_a_directory_worked_in_place_is_its_identity(tmp_path):
    write(tmp_path / "records")
    kinds = {"program": "launch.train", "kind": "run", "inputs": {"records": tmp_path / "records"}}
    one = artifacts.new_manifest(arguments={"output": "x", "seed": 0}, **kinds)
    same = artifacts.new_manifest(arguments={"output": "y", "seed": 0}, **kinds)
    other = artifacts.new_manifest(arguments={"output": "x", "seed": 1}, **kinds)
    assert one["fingerprint"] == same["fingerprint"] != other["fingerprint"]


def test_write_text_leaves_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    artifacts.write_text(tmp_path / "a.json", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        artifacts.write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
