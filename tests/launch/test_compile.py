"""Compiling for slices of TPUs that are not attached, through the command line."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from crops_jax import program
from crops_jax.devices import tpu_topology
from crops_jax.errors import InputError
from launch import compile as compile_program

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (make dev)"
)


def run_program(*arguments):
    """Exit status, outcome and what was said, in a process of its own: libtpu stays in it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    done = subprocess.run(
        [sys.executable, "-m", "launch.compile", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    outcome = json.loads(done.stdout.splitlines()[-1]) if done.stdout else None
    return done.returncode, outcome, done.stderr


@pytest.mark.slow
@needs_libtpu
def test_the_papers_encoder_fits_256_chips_of_v5e():
    status, outcome, said = run_program("qwen2_5_0_5b", "--topology", "v5e:16x16")
    assert status == 0, said
    assert outcome["devices"] == 256
    assert outcome["device_kind"] == "TPU v5 lite"
    assert 0 < outcome["argument_bytes"] < outcome["needed_bytes"] < outcome["memory_bytes"] == 16 << 30
    # Weights are gathered layer by layer, and no device sees more rows than its own: else it would be 14 GiB.
    assert outcome["temporary_bytes"] < 2 << 30
    assert 0 < outcome["model_flops_utilization"] < 1


@pytest.mark.slow
@needs_libtpu
def test_a_step_over_two_slices_splits_parameters_inside_each():
    flags = ("--encoder.layers", "1", "--mesh.fsdp", "64", "--mesh.model", "2")
    status, outcome, said = run_program("tiny_cpu", "--topology", "v5e:4x4", "--slices", "2", *flags)
    assert status == 0, said
    assert (outcome["slices"], outcome["devices"]) == (2, 32)
    assert outcome["mesh"] == {"data": 2, "fsdp": 8, "model": 2}
    assert 0 < outcome["needed_bytes"] < outcome["memory_bytes"]


@pytest.mark.slow
@needs_libtpu
def test_a_step_that_does_not_fit_ends_with_status_4():
    # 10 GB of token embeddings, and as much for each of their moments.
    flags = ("--encoder.layers", "1", "--encoder.vocabulary-size", "20000000")
    status, outcome, said = run_program("tiny_cpu", "--topology", "v5e:2x2", *flags)
    assert (status, outcome) == (4, None)
    assert "does not fit a TPU v5 lite" in said
    assert "--mesh.fsdp" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("topology", ["v5e", "v5e:16", "v7:2x2", "v5p:8x8", "v5e:axb", "v5e:0x16", ""])
def test_an_unknown_slice_is_refused_with_the_known_ones(topology):
    with pytest.raises(InputError, match=r"v4, v5e, v5p, v6e, such as v4:8x8x8, v5e:16x16"):
        tpu_topology.slice_devices(topology)


def test_no_slice_at_all_is_refused():
    with pytest.raises(InputError, match="--slices 0: there must be at least one slice"):
        tpu_topology.slice_devices("v5e:16x16", slices=0)


def test_without_libtpu_one_line_says_so(monkeypatch):
    monkeypatch.setattr(tpu_topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'libtpu, the compiler for TPUs, is not installed; .*"jax\[tpu\]"'):
        tpu_topology.slice_devices("v5e:16x16")


def test_lengths_beyond_the_limits_are_refused(monkeypatch, capfd):
    monkeypatch.setattr(tpu_topology, "slice_devices", lambda topology, *, slices: [])
    arguments = ["tiny_cpu", "--topology", "v5e:2x2", "--query-tokens", "17"]
    with pytest.raises(SystemExit) as stopped:
        program.run(compile_program.compile, example="", arguments=arguments)
    assert stopped.value.code == 2
    assert "--query-tokens 17 and --document-tokens 32 must lie in [1, 16] and [1, 32]" in capfd.readouterr().err
