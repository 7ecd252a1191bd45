"""The command `crops` runs the programs of the clone in any directory, and says so where there are none."""

import os
import pkgutil
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import crops_jax
from crops_jax.errors import InputError
from crops_jax.program import crops
from tests.paths import ROOT

_PROGRAMS = [module for programs in crops.STAGES.values() for module in programs]


def _crops(*arguments: str, folder: Path, library: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", "from crops_jax.program.crops import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_program_has_a_stage():
    files = [path for package in ("data", "launch") for path in (ROOT / package).glob("*.py")]
    programs = {f"{path.parent.name}.{path.stem}" for path in files if "program.run(" in path.read_text()}
    assert sorted(_PROGRAMS) == sorted(programs)


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["mine"], "data.mine"),
        (["hold-out"], "data.hold_out"),
        (["hold_out"], "data.hold_out"),
        (["launch.train"], "launch.train"),
        (["train-discriminator", "--labels"], "launch.train_discriminator"),
        (["report", "run", "--output", "report.html"], "launch.report"),
        (["report", "--labels", "labels"], "data.report"),
        (["report", "--labels=labels"], "data.report"),
    ],
)
def test_names_of_programs(words, module):
    assert crops.module_of(words[0], words[1:]) == module


@pytest.mark.parametrize(("name", "said"), [("mines", "did you mean crops mine"), ("xyz", "crops --help"), ("", "''")])
def test_an_unknown_name_is_refused_with_similar_ones(name, said):
    with pytest.raises(InputError, match=said):
        crops.module_of(name)


def test_the_list_names_every_program_in_lines_that_fit_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        crops.main(["--help"], root=ROOT)
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert max(map(len, printed.splitlines())) <= 80
    assert all(f"  {crops._command(module)} " in printed for module in _PROGRAMS)


def test_without_a_name_the_programs_are_listed_on_standard_error(capsys):
    with pytest.raises(SystemExit) as ended:
        crops.main([], root=ROOT)
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, "")
    assert "crops pipeline" in printed.err


def test_a_program_runs_in_a_directory_with_other_packages_of_the_same_names(tmp_path):
    for name in ("data", "launch", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a package of the present directory')\n")
    done = _crops("inspect", "nowhere", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: nowhere" in done.stderr
    done = _crops("simulate", "--help", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: crops simulate ")


def test_the_programs_of_a_chain_are_found_in_any_directory(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "documents.parquet").write_bytes(b"no Parquet")
    arguments = ("tiny_cpu", "--logs", "logs", "--from", "2026-01-01", "--output", "work")
    done = _crops("pipeline", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "documents.parquet" in done.stderr  # data.hold_out says it, which the chain starts
    assert "step 'hold out' was refused" in done.stderr


def test_the_package_declares_the_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {name: pkgutil.resolve_name(where) for name, where in scripts.items()} == {"crops": crops.main}


def test_an_installed_library_without_the_programs_says_where_they_are(tmp_path):
    shutil.copytree(Path(crops_jax.__file__).parent, tmp_path / "site" / "crops_jax")
    done = _crops("mine", "--help", folder=tmp_path, library=tmp_path / "site")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the programs are not part of the installed package")
