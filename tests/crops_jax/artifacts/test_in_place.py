"""A directory that a program works in: begun, taken up by the same command, refused to others with the difference."""

from pathlib import Path

import pytest

from crops_jax import artifacts
from crops_jax.artifacts import in_place
from crops_jax.errors import InputError

REMEDY = "give the same ones, or choose another output"


def manifest(logs=None, *, program="launch.embed", kind="embeddings", extra=None, **arguments):
    given = {"dim": None, "dtype": "float32", "config": {"optimizer": {"learning_rate": 0.1}}, **arguments}
    return artifacts.new_manifest(
        program=program, kind=kind, arguments=given, inputs={"logs": logs}, **(extra or {"layout": {"rows": 5}})
    )


def claim(directory, wanted, *, overwrite=False, logs=None, fill=None):
    return in_place.claim(directory, wanted, overwrite=overwrite, inputs={"logs": logs}, remedy=REMEDY, fill=fill)


def test_the_same_command_takes_up_what_it_began(tmp_path):
    out = tmp_path / "deep" / "out"
    assert claim(out, manifest())
    assert artifacts.read_manifest(out) == manifest()
    (out / "shard").write_text("done")
    assert not claim(out, manifest())
    assert (out / "shard").read_text() == "done"


def test_an_empty_directory_is_begun_in_and_a_link_to_one_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    assert claim(tmp_path / "out", manifest())
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / artifacts.MANIFEST).is_file()


def test_what_is_begun_anew_behind_a_link_stays_behind_the_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    claim(tmp_path / "out", manifest())
    (tmp_path / "out" / "days").mkdir()
    assert claim(tmp_path / "out", manifest(dim=4), overwrite=True)
    assert (tmp_path / "out").is_symlink()
    assert [entry.name for entry in (tmp_path / "disk").iterdir()] == [artifacts.MANIFEST]


def test_a_directory_that_is_removed_loses_its_manifest_last(tmp_path, monkeypatch):
    claim(tmp_path / "out", manifest())
    for name in ("a", "z"):
        (tmp_path / "out" / name).write_text("shard")
    order = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path: (order.append(path.name), unlink(path)))
    in_place.remove(tmp_path / "out")
    assert order[-1] == artifacts.MANIFEST
    assert len(order) == 3
    assert not (tmp_path / "out").exists()


def test_other_arguments_are_refused_with_the_difference_and_the_remedy(tmp_path):
    claim(tmp_path / "out", manifest())
    with pytest.raises(InputError) as refused:
        claim(tmp_path / "out", manifest(dim=4))
    assert str(refused.value) == f"{tmp_path / 'out'} was made from other things (--dim None, now 4); {REMEDY}"
    assert artifacts.read_manifest(tmp_path / "out") == manifest()


def test_overwrite_begins_anew_even_when_nothing_differs(tmp_path):
    for wanted in (manifest(), manifest(dim=4)):
        claim(tmp_path / "out", manifest(), overwrite=True)
        (tmp_path / "out" / "shard").write_text("done")
        assert claim(tmp_path / "out", wanted, overwrite=True)
        assert [entry.name for entry in (tmp_path / "out").iterdir()] == [artifacts.MANIFEST]
        assert artifacts.read_manifest(tmp_path / "out") == wanted


@pytest.mark.parametrize("overwrite", [None, False, True])
def test_files_of_the_user_are_kept(tmp_path, overwrite):
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match=r"choose another output"):
        claim(tmp_path, manifest(), overwrite=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_directory_must_not_overlap_what_it_is_made_from(tmp_path):
    (tmp_path / "logs").mkdir()
    with pytest.raises(InputError, match="overlap"):
        claim(tmp_path / "logs" / "out", manifest(), logs=tmp_path / "logs")
    assert not list((tmp_path / "logs").iterdir())


def test_what_fills_a_new_directory_appears_with_the_manifest_or_not_at_all(tmp_path):
    def fill(new):
        (new / "config.json").write_text("{}")

    def fail(new):
        fill(new)
        raise ValueError

    with pytest.raises(ValueError):
        claim(tmp_path / "run", manifest(), overwrite=None, fill=fail)
    assert not list(tmp_path.iterdir())
    assert claim(tmp_path / "run", manifest(), overwrite=None, fill=fill)
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["config.json", artifacts.MANIFEST]
    assert not claim(tmp_path / "run", manifest(), overwrite=None, fill=fail)


def test_a_directory_of_another_program_or_kind_is_named(tmp_path):
    claim(tmp_path / "out", manifest())
    in_place.check_written_by(tmp_path / "out", program="launch.embed", kind="embeddings", noun="an output")
    for program, kind in (("launch.train", "run"), ("launch.embed", "run")):
        with pytest.raises(InputError, match=rf"was written by launch\.embed and is not a run of {program}; choose"):
            in_place.check_written_by(tmp_path / "out", program=program, kind=kind, noun="a run")


def test_once_the_work_is_done_the_identity_decides_and_not_the_content():
    begun = manifest(extra={"prompt": "write"})
    begun = {**begun, "identity": begun["fingerprint"]}
    assert in_place.is_same({**begun, "fingerprint": "of the table"}, begun)
    assert not in_place.is_same(begun, {**manifest(dim=4), "identity": "another"})
    assert not in_place.is_same(manifest(), manifest(dim=4))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"dim": 4}, "--dim None, now 4"),
        ({"shard_size": 8}, "--shard-size None, now 8"),
        ({"config": {"optimizer": {"learning_rate": 0.2}}}, "config.optimizer.learning_rate 0.1, now 0.2"),
        ({"extra": {"layout": {"rows": 6}}}, "layout.rows 5, now 6"),
        ({"program": "launch.train", "dim": 4}, "program launch.embed, now launch.train"),
        ({"kind": "run", "dim": 4}, "kind embeddings, now run"),
        ({"dtype": "x" * 81}, "--dtype has changed"),
        ({"dtype": "two\nlines"}, "--dtype has changed"),
        ({"extra": {"layout": {"rows": 6}}, "dim": 4}, "layout.rows 5, now 6; --dim None, now 4"),
        ({}, "its manifest differs"),
    ],
)
def test_a_difference_is_named(changes, expected):
    assert in_place.difference(manifest(), manifest(**changes)) == expected


def test_an_argument_that_is_there_no_more_differs_too():
    assert in_place.difference(manifest(seed=1), manifest()) == "--seed 1, now None"


def test_an_input_differs_by_its_fingerprint(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).write_text(name)
    one = manifest(tmp_path / "one")
    assert in_place.difference(one, manifest(tmp_path / "other")) == "--logs has changed"
    assert in_place.difference(one, manifest()) == "--logs has changed"


def test_a_flag_may_be_named_otherwise_than_its_field():
    flags = {"from_time": "--from"}
    assert in_place.difference(manifest(from_time="a"), manifest(from_time="b"), flags=flags) == "--from a, now b"


def test_many_differences_are_counted():
    names = [f"x{number}" for number in range(7)]
    words = in_place.difference(manifest(**dict.fromkeys(names, 1)), manifest(**dict.fromkeys(names, 2)))
    assert words == "; ".join(f"--{name} 1, now 2" for name in names[:5]) + "; and 2 more"


def test_another_version_is_named():
    assert in_place.difference({**manifest(), "version": "0.0.1"}, manifest()).startswith("version 0.0.1, now ")


@pytest.mark.parametrize("overwrite", [None, False, True])
def test_work_of_another_kind_is_neither_taken_up_nor_replaced(tmp_path, overwrite):
    labels = manifest(program="data.mine", kind="labels")
    claim(tmp_path / "out", labels)
    (tmp_path / "out" / "labels.parquet").write_text("mined")
    with pytest.raises(
        InputError, match=r"written by data\.mine and its kind is labels, not embeddings.*another output"
    ):
        claim(tmp_path / "out", manifest(), overwrite=overwrite)
    assert artifacts.read_manifest(tmp_path / "out") == labels
    assert (tmp_path / "out" / "labels.parquet").read_text() == "mined"
