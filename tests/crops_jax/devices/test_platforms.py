"""What a user insists on, and what the machine has: every combination is refused or set before JAX starts."""

import importlib.util
import os
import sys

import jax
import pytest

from crops_jax.devices import platforms
from crops_jax.devices.platforms import Machine, insist_on, skip_absent_tpu, this_machine, unused_gpu
from crops_jax.errors import InputError

NOTHING = Machine(nvidia_gpu=False, tpu=False, cuda=False, rocm=False, libtpu=False)


@pytest.fixture(autouse=True)
def set_in_jax(monkeypatch):
    """The updates of JAX's own configuration, which this process has loaded already."""
    updates = []
    monkeypatch.setattr(jax.config, "update", lambda *value: updates.append(value))
    return updates


@pytest.mark.parametrize(
    ("installed", "platform", "expected"),
    [
        ({"libtpu"}, "", [("jax_platforms", "cpu")]),
        ({"libtpu"}, "tpu", []),
        ({"libtpu", "jax_cuda13_plugin"}, "", []),
        (set(), "", []),
    ],
)
def test_a_library_for_tpus_without_a_tpu_is_left_alone(monkeypatch, set_in_jax, installed, platform, expected):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(platforms, "has_tpu", lambda: False)
    environment = {"JAX_PLATFORMS": platform} if platform else {}
    skip_absent_tpu(environment)
    assert set_in_jax == expected
    assert environment.get("JAX_PLATFORMS", "") == (expected[0][1] if expected else platform)


@pytest.mark.parametrize(
    ("device", "machine", "platform"),
    [
        ("cpu", NOTHING, "cpu"),
        ("gpu", NOTHING._replace(nvidia_gpu=True, cuda=True), "cuda,cpu"),
        ("gpu", NOTHING._replace(rocm=True), "rocm,cpu"),
        ("tpu", NOTHING._replace(tpu=True, libtpu=True), "tpu,cpu"),
    ],
)
def test_a_device_that_is_there_is_the_first_of_jax_and_of_child_processes(set_in_jax, device, machine, platform):
    environment = {"JAX_PLATFORMS": "cpu"}
    insist_on(device, environment, machine=lambda: machine, obstacle=lambda _: "")
    assert environment == {"JAX_PLATFORMS": platform}
    assert set_in_jax == [("jax_platforms", platform)]


@pytest.mark.parametrize(
    ("device", "machine", "environment", "words"),
    [
        ("gpu", NOTHING, {}, r"no NVIDIA GPU; start .* or leave out --device"),
        ("gpu", NOTHING._replace(cuda=True), {}, "no NVIDIA GPU"),
        ("gpu", NOTHING._replace(nvidia_gpu=True), {}, r'without CUDA; install it with .*"jax\[cuda13\]"'),
        (
            "gpu",
            NOTHING._replace(nvidia_gpu=True, cuda=True),
            {"CUDA_VISIBLE_DEVICES": ""},
            "CUDA_VISIBLE_DEVICES='' hides all GPUs from JAX; unset CUDA_VISIBLE_DEVICES",
        ),
        ("tpu", NOTHING, {}, "no TPU"),
        ("tpu", NOTHING._replace(tpu=True), {}, r'without libtpu; install it with .*"jax\[tpu\]"'),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_the_remedy(set_in_jax, device, machine, environment, words):
    with pytest.raises(InputError, match=f"--device {device}: .*{words}"):
        insist_on(device, dict(environment), machine=lambda: machine, obstacle=lambda _: "")
    assert not set_in_jax


def test_a_gpu_that_jax_cannot_use_is_refused_by_the_only_process(set_in_jax):
    machine = NOTHING._replace(nvidia_gpu=True, cuda=True)
    tried = []

    def obstacle(environment):
        tried.append(environment["JAX_PLATFORMS"])
        return "the driver is too old"

    with pytest.raises(InputError, match="the driver is too old"):
        insist_on("gpu", {}, machine=lambda: machine, obstacle=obstacle)
    assert tried == ["cuda,cpu"]
    # Of several processes each has its own GPU, and all of them start at once: JAX itself refuses then.
    insist_on("gpu", {}, alone=False, machine=lambda: machine, obstacle=obstacle)
    assert tried == ["cuda,cpu"]


def test_another_process_tries_what_jax_finds():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    assert platforms._gpu_obstacle(environment) == "it found a cpu only"
    unknown = platforms._gpu_obstacle({**environment, "JAX_PLATFORMS": "nonsense"})
    assert "Unable to initialize backend 'nonsense'" in unknown


@pytest.mark.parametrize(
    ("machine", "environment", "warned"),
    [
        (NOTHING._replace(nvidia_gpu=True), {}, True),
        (NOTHING._replace(nvidia_gpu=True, libtpu=True), {}, True),
        (NOTHING._replace(nvidia_gpu=True, cuda=True), {}, False),
        (NOTHING._replace(nvidia_gpu=True, tpu=True, libtpu=True), {}, False),
        (NOTHING, {}, False),
        (NOTHING._replace(nvidia_gpu=True), {"JAX_PLATFORMS": "cpu"}, False),
        (NOTHING._replace(nvidia_gpu=True), {"CUDA_VISIBLE_DEVICES": "-1"}, False),
    ],
)
def test_a_gpu_that_a_jax_without_cuda_leaves_unused_is_told_once(machine, environment, warned):
    environment = dict(environment)
    warning = unused_gpu(environment, machine=lambda: machine)
    assert ('"jax[cuda13]"' in warning) == warned
    assert bool(warning) == warned
    if warned:
        assert environment["JAX_PLATFORMS"] == "cpu"
    assert unused_gpu(environment, machine=lambda: machine) == ""


def test_a_driver_without_device_files_is_found_by_its_tool(tmp_path, monkeypatch):
    monkeypatch.setattr(platforms, "_NVIDIA_FILES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not this_machine().nvidia_gpu
    tool = tmp_path / "nvidia-smi"
    for answer, found in (("GPU 0: NVIDIA L4 (UUID: GPU-1)", True), ("No devices were found", False)):
        tool.write_text(f"#!{sys.executable}\nprint({answer!r})\n")
        tool.chmod(0o755)
        assert this_machine().nvidia_gpu == found
