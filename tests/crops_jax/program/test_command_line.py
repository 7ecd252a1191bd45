import asyncio
import dataclasses
import errno
import gc
import json
import os
import signal
import subprocess
import sys
import threading

import pyarrow.parquet as pq
import pytest

from crops_jax import program
from crops_jax.devices import platforms, processes
from crops_jax.devices.platforms import Machine
from crops_jax.devices.processes import Processes
from crops_jax.errors import AnotherProcessFailed, InputError, NamedFailure
from crops_jax.program.command_line import check_encoding
from tests.paths import ROOT
from tests.pseudo_terminal import CTRL_C, on_terminal

NOTHING = Machine(nvidia_gpu=False, tpu=False, cuda=False, rocm=False, libtpu=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    output: str
    """Where to write."""
    overwrite: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfiguredArguments:
    output: str
    config: program.ConfigArgument


def run(function, arguments, capfd):
    with pytest.raises(SystemExit) as stopped:
        program.run(function, example="python -m x --output y", arguments=arguments)
    captured = capfd.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_the_outcome_is_the_only_line_on_standard_output(capfd):
    def main(arguments: Arguments) -> dict:
        """Says hello."""
        print("for people")
        os.write(1, b"from native code\n")
        return {"output": arguments.output, "overwrite": arguments.overwrite}

    status, out, err = run(main, ["--output", "é", "--overwrite"], capfd)
    assert status == 0
    assert json.loads(out) == {"output": "é", "overwrite": True}
    assert out.count("\n") == 1
    assert "for people" in err
    assert "from native code" in err


def test_a_program_can_name_the_command_that_called_it(capfd):
    def main(arguments: Arguments) -> dict:
        """Says hello."""
        return {"command": program.called_command()}

    _, out, _ = run(main, ["--output", "my folder", "--overwrite"], capfd)
    command = json.loads(out)["command"]
    assert command == f"python -m {__name__} --output 'my folder' --overwrite"


def test_of_several_processes_one_speaks(capfd, monkeypatch):
    def main(arguments: Arguments) -> dict:
        """Says hello."""
        return {}

    monkeypatch.setattr(processes, "_current", Processes(1, 2))
    assert run(main, ["--output", "x"], capfd) == (0, "", "")
    assert run(raising(AnotherProcessFailed(4)), ["--output", "x"], capfd) == (4, "", "")


def raising(error):
    def main(arguments: Arguments) -> dict:
        """Fails."""
        if error is signal.SIGTERM:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("documents.parquet: column title is missing; add it"), 2, "column title"),
        (NamedFailure("loss is NaN at step 3"), 4, "NaN at step 3"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 4, "disk is full"),
        (OSError(errno.ENOSPC, "No space left on device", "read.parquet", None, "written.parquet"), 4, "(written.parq"),
        (OSError(errno.EFBIG, "File too large", "x"), 4, "largest size that is allowed (x); raise the limit"),
        (RuntimeError("IO Error: File too large"), 4, "largest size that is allowed"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "logs"), 2, "logs: No such file"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 4, "disk is full"),
        (FileExistsError(errno.EEXIST, "File exists", "notes.txt"), 2, "notes.txt: File exists"),
        (OSError(errno.EROFS, "Read-only file system", "/run"), 2, "/run: Read-only"),
        (KeyboardInterrupt(), 3, "interrupted"),
        (signal.SIGTERM, 3, "terminated"),
    ],
)
def test_each_way_to_fail_has_its_status_and_one_message(error, status, words, capfd):
    found, out, err = run(raising(error), ["--output", "x"], capfd)
    assert found == status
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


def test_sigterm_is_not_lost_in_a_callback_whose_exceptions_python_drops(capfd):
    def main(arguments: Arguments) -> dict:
        """Is told to stop while garbage is collected."""
        gc.callbacks.append(stop)
        gc.collect()
        threading.Event().wait(60)
        return {}

    def stop(*_):
        gc.callbacks.remove(stop)
        os.kill(os.getpid(), signal.SIGTERM)
        (lambda: None)()  # signals are answered between instructions

    status, out, err = run(main, ["--output", "x"], capfd)
    assert (status, out) == (3, "")
    assert "terminated" in err


def test_sigterm_while_a_launch_program_is_still_importing_is_status_3():
    code = "import sys; sys.argv = ['-m']; import launch, os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 3
    plain = "import launch, signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    assert subprocess.run([sys.executable, "-c", plain], check=True, capture_output=True).stdout == b"True\n"


def test_an_outcome_may_name_a_path_that_is_not_utf_8(capfdbinary):
    def main(arguments: Arguments) -> dict:
        """Says where."""
        return {"output": arguments.output}

    with pytest.raises(SystemExit):
        program.run(main, example="", arguments=["--output", "a\udcff"])
    assert b'"a\xff"' in capfdbinary.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_an_argument_that_the_locale_does_not_pass_on_is_named(encoding):
    arguments = ["--logs", "möbel".encode().decode(encoding, "surrogateescape")]
    with pytest.raises(InputError, match=f"whose encoding is {encoding}.*PYTHONUTF8=1"):
        check_encoding(arguments, encoding)
    check_encoding(["--logs", "moebel"], encoding)
    check_encoding(["--logs", "möbel"], "utf-8")


def test_a_program_in_a_locale_that_is_not_utf_8_names_it_or_works(tmp_path):
    (tmp_path / "raw").mkdir()
    row = {"doc_id": "dé", "title": "Möbel 苹果", "query": "schöne Möbel", "grade": 1}
    (tmp_path / "raw" / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    mapping = "".join(
        f'[{name}]\nfiles = "rows.jsonl"\n[{name}.columns]\n' + "".join(f'{key} = "{key}"\n' for key in keys)
        for name, keys in (("documents", ("doc_id", "title")), ("judgements", ("query", "doc_id", "grade")))
    )
    (tmp_path / "raw" / "mapping.toml").write_text(mapping)
    environment = os.environ | {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(output):
        command = [sys.executable, "-m", "data.convert", "--source", "mapping", "--input", str(tmp_path / "raw")]
        return subprocess.run([*command, "--output", output], cwd=ROOT, capture_output=True, env=environment)

    done = run(str(tmp_path / "logs"))
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "logs" / "documents.parquet")["title"].to_pylist() == ["Möbel 苹果"]
    refused = run(str(tmp_path / "möbel"))
    assert refused.returncode == 2
    assert b"encoding is ascii" in refused.stderr


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        program.run(raising(ZeroDivisionError()), example="", arguments=["--output", "x"])


@pytest.mark.parametrize("arguments", [[], ["--output"], ["--output", "x", "--nonsense"], ["--output", "x", "stray"]])
def test_wrong_arguments_are_status_2(arguments, capfd):
    status, out, _ = run(raising(AssertionError("never reached")), arguments, capfd)
    assert status == 2
    assert out == ""


def test_flags_for_another_program_are_one_value_with_or_without_an_equals_sign():
    def main(arguments: Arguments) -> dict:
        """Says what it got."""
        return {}

    for given in (["--output", "--alpha 0.5 --seed 1"], ["--output=--alpha 0.5 --seed 1"]):
        assert program.parse(main, [*given, "--overwrite"]) == Arguments(output="--alpha 0.5 --seed 1", overwrite=True)


def configured(arguments: ConfiguredArguments) -> dict:
    """Trains."""
    return {"rate": arguments.config.optimizer.learning_rate, "width": arguments.config.encoder.width}


def test_any_field_of_a_configuration_is_overridden_on_the_command_line(capfd):
    status, out, _ = run(configured, ["tiny_cpu", "--output", "x", "--optimizer.learning-rate", "0.5"], capfd)
    assert status == 0
    assert json.loads(out) == {"rate": 0.5, "width": 128}


def test_a_configuration_may_stand_in_a_folder_of_configs(capfd):
    status, out, _ = run(configured, ["baselines.nce", "--output", "x", "--encoder.width", "64"], capfd)
    assert status == 0
    assert json.loads(out) == {"rate": 1e-3, "width": 64}


def test_a_configuration_may_be_a_file(tmp_path, capfd):
    file = tmp_path / "mine.py"
    file.write_text("from configs.base import CONFIG as BASE\nCONFIG = BASE.replace(encoder={'width': 24})\n")
    status, out, _ = run(configured, [str(file), "--output", "x"], capfd)
    assert status == 0
    assert json.loads(out)["width"] == 24


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "x"], "name a configuration first"),
        (["nope", "--output", "x"], "tiny_cpu"),
        (
            ["baselines.nope", "--output", "x"],
            "configuration baselines.nope is not one of configs/ (base, baselines.crops",
        ),
        (["nope.crops", "--output", "x"], "configuration nope.crops is not one of configs/"),
        (["baselines", "--output", "x"], "CONFIG must be a crops_jax.config.Config"),
        (["/nope.py", "--output", "x"], "no such file"),
        (["tiny_cpu", "--output", "x", "--optimizer.rate", "1"], "rate"),
        (["tiny_cpu", "--output", "x", "--optimizer.learning-rate", "fast"], "fast"),
        (["tiny_cpu", "--output", "x", "--optimizer.learning-rate", "-1"], "positive"),
        (["tiny_cpu", "--output", "x", "--encoder.heads", "5"], "multiple of heads"),
        (["tiny_cpu", "--output", "x", "--training.epochs", "inf"], "epochs must be finite"),
        (["tiny_cpu", "--output", "x", "--optimizer.learning-rate", "inf"], "learning_rate must be finite"),
    ],
)
def test_wrong_configurations_are_status_2(arguments, words, capfd):
    status, out, err = run(configured, arguments, capfd)
    assert status == 2
    assert out == ""
    assert words in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    "text",
    [
        "CONFIG = 3",
        "import nothing_of_this_name",
        "x = (",
        "CONFIG = undefined",
        "1 / 0",
        "{}['field']",
        "from crops_jax.config import Nothing",
        "raise SystemExit(0)",
    ],
)
def test_a_broken_configuration_file_is_status_2(text, tmp_path, capfd):
    file = tmp_path / "broken.py"
    file.write_text(text)
    status, _, err = run(configured, [str(file), "--output", "x"], capfd)
    assert status == 2
    assert "broken.py" in err


ON_A_TERMINAL = f"""
import dataclasses, os, signal, sys, threading
sys.path.insert(0, {str(ROOT)!r})
from crops_jax import program

@dataclasses.dataclass(frozen=True)
class Arguments:
    output: str = "out"
    waits: bool = False

def main(arguments: Arguments) -> dict:
    \"\"\"Says where.\"\"\"
    print("for people")
    if arguments.waits:
        program.say("waiting")
        threading.Event().wait(100)
    return {{"output": arguments.output, "rows": {{"train": 1000, "dev": 20}}}}

program.run(main, example="", then=("data.mine --logs {{output}} --output LABELS",))
"""


def test_a_terminal_shows_a_table_and_the_next_commands():
    session = on_terminal([sys.executable, "-c", ON_A_TERMINAL, "--output", "a b"])
    assert session.status == 0
    assert session.lines == [
        "for people",
        "output  a b",
        "rows    train 1,000, dev 20",
        "",
        "next:",
        "    python -m data.mine --logs 'a b' --output LABELS",
        "",
    ]


def test_json_is_the_last_line_with_its_flag_and_where_standard_output_is_no_terminal():
    expected = {"output": "out", "rows": {"train": 1000, "dev": 20}}
    asked = on_terminal([sys.executable, "-c", ON_A_TERMINAL, "--json"])
    assert json.loads(asked.lines[-2]) == expected
    assert "next:" not in asked.lines
    piped = on_terminal(["sh", "-c", '"$0" -c "$1" | cat', sys.executable, ON_A_TERMINAL])
    assert json.loads(piped.lines[-2]) == expected


def test_ctrl_c_is_one_message_without_a_traceback():
    command = [sys.executable, "-c", ON_A_TERMINAL, "--waits"]
    session = on_terminal(command, answers={"waiting": CTRL_C})
    assert session.status == 3
    assert session.written.endswith("error: interrupted; call the same command again\r\n")
    assert session.written.count("error:") == 1
    assert "Traceback" not in session.written


@pytest.fixture
def default_ctrl_c():
    """Gives Ctrl-C its default handler during a test."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_ctrl_c_is_not_lost_in_a_callback_whose_exceptions_python_drops(capfd, default_ctrl_c):
    def main(arguments: Arguments) -> dict:
        """Is told to stop while garbage is collected."""
        gc.callbacks.append(stop)
        gc.collect()
        threading.Event().wait(60)
        return {}

    def stop(*_):
        gc.callbacks.remove(stop)
        os.kill(os.getpid(), signal.SIGINT)
        (lambda: None)()  # signals are answered between instructions

    status, out, err = run(main, ["--output", "x"], capfd)
    assert (status, out) == (3, "")
    assert "error: interrupted" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_import_waits_until_the_module_is_made(number, tmp_path, monkeypatch, capfd, default_ctrl_c):
    """Native modules crash when an exception meets their initialisation, and Python modules would stay half-made."""
    text = (
        "import os\nmade = 1\nfor _ in range(3):\n    os.kill(os.getpid(), {number})\n    (lambda: None)()\nmade = 2\n"
    )
    (tmp_path / "made_in_parts.py").write_text(text.format(number=int(number)))
    monkeypatch.syspath_prepend(tmp_path)

    def main(arguments: Arguments) -> dict:
        """Is told to stop while it imports a module."""
        import made_in_parts  # noqa: F401

        threading.Event().wait(60)
        return {}

    status, out, err = run(main, ["--output", "x"], capfd)
    assert (status, out) == (3, "")
    assert sys.modules.pop("made_in_parts").made == 2
    assert "interrupted" in err or "terminated" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_callback_of_asyncio_is_not_lost(number, capfd, default_ctrl_c):
    """Orbax restores checkpoints in such callbacks, of which asyncio logs and drops the exceptions."""

    async def restore() -> None:
        os.kill(os.getpid(), number)
        (lambda: None)()  # signals are answered between instructions

    def main(arguments: Arguments) -> dict:
        """Is told to stop while it restores something."""
        asyncio.run(restore())
        threading.Event().wait(60)
        return {}

    status, out, err = run(main, ["--output", "x"], capfd)
    assert (status, out) == (3, "")
    assert "Traceback" not in err


def test_ctrl_c_within_exec_has_the_status_of_an_interrupt():
    """CPython would end such a process by the signal, although the exception was caught."""
    program_text = (
        "import dataclasses, os, signal\n"
        "from crops_jax import program\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "Arguments = dataclasses.make_dataclass('Arguments', [('output', str)])\n"
        "def main(arguments: Arguments) -> dict:\n"
        "    'Is told to stop.'\n"
        "    exec('import os\\nos.kill(os.getpid(), 2)\\n(lambda: None)()')\n"
        "    return {}\n"
        "program.run(main, example='', arguments=['--output', 'x'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program_text], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "error: interrupted" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_query_of_duckdb_is_the_interrupt_that_it_is(number, capfd, default_ctrl_c):
    import duckdb

    def send(value: int) -> int:
        os.kill(os.getpid(), number)
        return value

    def main(arguments: Arguments) -> dict:
        """Is told to stop within a query."""
        with duckdb.connect() as connection:
            connection.create_function("send", send, ["BIGINT"], "BIGINT")
            connection.execute("SELECT sum(send(a)) FROM range(3) AS numbers(a)").fetchall()
        raise AssertionError("the signal was lost")

    status, out, err = run(main, ["--output", "x"], capfd)
    assert (status, out) == (3, "")
    assert "interrupted" in err or "terminated" in err
    assert "Traceback" not in err


def test_a_device_that_is_not_there_is_refused_before_anything_is_done(capfd, monkeypatch):
    monkeypatch.setattr(platforms, "this_machine", lambda: NOTHING)

    def main(arguments: Arguments) -> dict:
        """Computes."""
        raise AssertionError("never reached")

    with pytest.raises(SystemExit) as stopped:
        program.run(main, example="", device=True, arguments=["--output", "x", "--device", "gpu"])
    assert stopped.value.code == 2
    assert "--device gpu: this machine has no NVIDIA GPU" in capfd.readouterr().err


def test_a_gpu_that_jax_does_not_use_is_told_by_programs_that_compute_with_it(capfd, monkeypatch):
    monkeypatch.setattr(platforms, "this_machine", lambda: NOTHING._replace(nvidia_gpu=True))
    monkeypatch.setattr(platforms, "set_platforms", lambda environment, platforms: None)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)

    def main(arguments: Arguments) -> dict:
        """Computes."""
        return {}

    for device, told in ((True, 1), (False, 0)):
        with pytest.raises(SystemExit):
            program.run(main, example="", device=device, arguments=["--output", "x"])
        assert capfd.readouterr().err.count("JAX is installed without CUDA and computes on the CPU") == told


def test_a_device_that_fails_when_jax_starts_it_is_status_2(capfd):
    error = RuntimeError("Unable to initialize backend 'cuda': no supported devices found for platform CUDA")
    status, out, err = run(raising(error), ["--output", "x"], capfd)
    assert (status, out) == (2, "")
    assert "no supported devices found" in err
    assert "--device cpu" in err
