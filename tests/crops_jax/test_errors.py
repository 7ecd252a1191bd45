"""Errors as one line of a message; SIGTERM while a program's imports are under way: status 3."""

import os
import signal
import subprocess
import sys

import pytest

from crops_jax.errors import one_line
from tests.paths import ROOT

PROGRAM = """
import os, signal
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""


@pytest.fixture
def package(tmp_path):
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "__init__.py").write_text(
        "from crops_jax import errors\nerrors.answer_while_importing()\n"
    )
    (tmp_path / "programs" / "slow.py").write_text(PROGRAM)
    return tmp_path


def status(command, folder):
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, timeout=300).returncode


def test_a_program_ends_with_status_3(package):
    assert status([sys.executable, "-m", "programs.slow"], package) == 3


def test_an_import_from_elsewhere_leaves_the_signal_alone(package):
    assert status([sys.executable, "-c", "import programs.slow"], package) == -signal.SIGTERM


@pytest.mark.parametrize("package_of_programs", ["data", "launch"])
def test_the_packages_of_programs_do_so(package_of_programs):
    assert "errors.answer_while_importing()" in (ROOT / package_of_programs / "__init__.py").read_text()


@pytest.mark.parametrize(
    ("error", "limit", "expected"),
    [
        (ValueError("cut off\n\n  at\tbyte 7 \n"), 200, "cut off at byte 7"),
        ("a text\nof two lines", 200, "a text of two lines"),
        (ValueError("x" * 300), 200, "x" * 200),
        ("a  bc", 3, "a b"),
        (KeyError(), 200, "KeyError"),
        (ValueError(" \n"), 200, "ValueError"),
        ("", 200, ""),
    ],
)
def test_the_text_of_an_error_becomes_one_line_of_limited_length(error, limit, expected):
    assert one_line(error, limit=limit) == expected


def test_one_line_has_a_limit_by_default():
    assert len(one_line(ValueError("words " * 1000))) == 200
