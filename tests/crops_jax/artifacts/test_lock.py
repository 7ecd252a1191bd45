import subprocess
import sys
import textwrap

import pytest

from crops_jax.artifacts.lock import exclusive
from crops_jax.errors import InputError
from tests.paths import ROOT


def other_process(file, *, patience_seconds=0.0):
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from crops_jax.artifacts.lock import exclusive
        with exclusive(Path({str(file)!r}), refusal="held by another", patience_seconds={patience_seconds}):
            print("taken")
    """)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_file_is_held_by_one_process_at_a_time(tmp_path):
    file = tmp_path / "lock"
    with exclusive(file, refusal="held by another"):
        output, errors = other_process(file).communicate()
        assert "InputError: held by another" in errors
        assert "taken" not in output
        waiting = other_process(file, patience_seconds=300)
    assert waiting.communicate()[0] == "taken\n"
    with exclusive(file, refusal="held by another"):
        pass


def test_a_second_hold_in_one_process_is_refused_and_the_block_always_lets_go(tmp_path):
    file = tmp_path / "lock"
    with exclusive(file, refusal="held"), pytest.raises(InputError, match="held"):
        with exclusive(file, refusal="held"):
            pass
    with pytest.raises(KeyError), exclusive(file, refusal="held"):
        raise KeyError
    with exclusive(file, refusal="held"):
        pass


def test_a_child_that_inherits_it_holds_it_on(tmp_path):
    file = tmp_path / "lock"
    with exclusive(file, refusal="held", inherited_by_children=True):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    with pytest.raises(InputError, match="held"), exclusive(file, refusal="held"):
        pass
    child.communicate(b"\n")
    with exclusive(file, refusal="held", patience_seconds=60):
        pass


def test_what_the_file_holds_is_kept(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text("paid for\n")
    with exclusive(file, refusal="held"):
        pass
    assert file.read_text() == "paid for\n"
