import dataclasses
import importlib
import os
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import tyro

from crops_jax import program
from crops_jax.config import Config
from crops_jax.errors import InputError
from crops_jax.program.crops import STAGES
from crops_jax.storage.arguments import path_arguments, role_of, with_paths
from crops_jax.storage.roles import Role
from crops_jax.storage.schemes import refuse_scheme
from tests.docs.programs import _function_of as function_of
from tests.paths import ROOT

PROGRAMS = [*(name for names in STAGES.values() for name in names), "benchmarks.mining", "benchmarks.record_writing"]
NO_PATHS = {
    *("from_", "from_time", "until", "day", "forget_before", "memory_limit", "spark_master", "perspectives"),
    *("grade_levels", "levels", "base_url", "model", "api_key_variable", "name", "query", "arms", "by", "systems"),
    *("zone", "project", "runtime", "command", "folder", "log"),  # on the machines of launch.tpu
    *("real", "reference", "first_day", "topology", "workers"),
}
"""The fields that are texts and no paths. A new field is one of these, or has a type of crops_jax.storage.roles."""


def fields_of(kind: type, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yields the flag, the name and the type of each field of arguments and of what they hold."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        bare = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
        if dataclasses.is_dataclass(bare):
            unnamed = bare is Config or field.name in ("parameters", "world", "config")
            yield from fields_of(bare, prefix if unnamed else f"{prefix}{field.name}.")
        else:
            yield f"--{prefix}{field.name.replace('_', '-')}", field.name, hint


def arguments_of(module: str) -> type:
    function = getattr(importlib.import_module(module), function_of(module))
    return next(kind for name, kind in typing.get_type_hints(function).items() if name != "return")


def flags_of(role_wanted) -> list[tuple[str, str]]:
    return [
        (module, "" if tyro.conf.Positional in getattr(hint, "__metadata__", ()) else flag)
        for module in PROGRAMS
        for flag, _, hint in fields_of(arguments_of(module))
        if (role := role_of(hint)) is not None and role_wanted(role)
    ]


IN_BUCKETS = flags_of(lambda role: role not in (Role.LOCAL, Role.FLAGS))
LOCAL = set(flags_of(lambda role: role is Role.LOCAL))
"""The paths that are on a file system in every case."""


FIRST_IN_BUCKETS = set({module: (module, flag) for module, flag in reversed(IN_BUCKETS)}.values())
"""One path of each program that may lie in a bucket."""


def is_text(hint: Any) -> bool:
    return hint is str or any(is_text(part) for part in typing.get_args(hint))


@pytest.mark.parametrize("module", PROGRAMS)
def test_every_field_that_is_a_text_is_a_path_or_known_to_be_none(module):
    fields = list(fields_of(arguments_of(module)))
    assert fields
    unknown = [flag for flag, name, hint in fields if is_text(hint) and role_of(hint) is None and name not in NO_PATHS]
    assert unknown == []


REQUIRED = {
    "launch.pipeline": "tiny_cpu --logs x --output x",
    "launch.compare": "--output x",
    "data.convert": "--source trec_session --input x --output x",
    "data.simulate": "--output x",
    "data.synthesize": "--logs x --output x --base-url http://localhost:1/v1 --model x",
    "data.inspect": "x",
    "data.hold_out": "--logs x --output x",
    "launch.train_discriminator": "--logs x --output x",
    "data.mine": "--logs x --output x",
    "data.report": "--labels x --logs x --output x",
    "launch.mine_negatives": "--labels x --output x --level 0 --query-embeddings x --document-embeddings x",
    "data.pretraining_pairs": "--logs x --output x",
    "data.write_records": "--labels x --logs x --output x",
    "launch.train": "tiny_cpu --records x --output x",
    "launch.status": "x",
    "launch.compile": "tiny_cpu --topology v5e:2x2",
    "launch.tpu": "create --name x --zone x --topology v5e:2x2",
    "launch.embed": "--run x --texts x --tower query --output x",
    "launch.evaluate": "--run x --logs x --output x",
    "launch.report": "x --output x",
    "launch.search": "--run x --logs x",
    "launch.export": "--run x --output x",
    "benchmarks.mining": "",
    "benchmarks.record_writing": "",
}
"""A command line of each program without its optional arguments."""
FURTHER = {
    ("launch.compare", "--logs"): "--from 2024-01-01",
    ("launch.compare", "--weights"): "--real bestbuy --logs x",
    ("launch.compare", "--warm-start-flags"): "--warm-start catalogue",
    ("launch.pipeline", "--warm-start-flags"): "--warm-start",
    ("launch.compare", "--discriminator-flags"): "--discriminator cross_encoder",
    ("launch.pipeline", "--discriminator-flags"): "--discriminator cross_encoder",
}
"""The arguments that a flag needs beside it."""


def command(module: str, flag: str, value: str) -> list[str]:
    """Returns a command line with `value` for the path that `flag` names, or for the positional one."""
    words = [*REQUIRED[module].split(), *FURTHER.get((module, flag), "").split()]
    return [*words, f"{flag}={value}"] if flag else [value, *words[1:]]


@pytest.mark.parametrize(("module", "flag"), flags_of(lambda role: role is not Role.FLAGS))
def test_a_path_with_a_scheme_is_refused_by_every_program_and_nothing_is_made(module, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    function = getattr(importlib.import_module(module), function_of(module))
    is_local = (module, flag) in LOCAL
    for value in ["gs:/bucket/x", *(["s3://bucket/x"] if is_local else [])]:
        with pytest.raises(InputError, match="mount the bucket") as refused:
            program.parse(function, command(module, flag, value))
        named = str(refused.value).split()
        assert named[0] == flag or (flag == "" and named[0] in ("PATH", "PATHS", "RUN"))
        assert named[1] == f"{value}:"
    if (module, flag) in FIRST_IN_BUCKETS:
        arguments = program.parse(function, command(module, flag, "s3://bucket/x/"))
        assert "s3://bucket/x/" in [argument.value for argument in path_arguments(arguments)]
        replaced = with_paths(arguments, lambda argument: f"local {argument.flag}")
        assert {argument.value for argument in path_arguments(replaced)} == {
            f"local {argument.flag}" for argument in path_arguments(arguments)
        }
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "path",
    [
        *("hdfs://host/x", "gs:/b/x", "gs://", "gs:///x", "S3:b", "S3://b/x", "file:///x", "made-up+x://y", "az://b/x"),
        *(" s3://b/x", '"gs://b/x"', "'s3://b/x'", "\ts3://b/x"),  # of a shell script or a manifest
    ],
)
def test_other_schemes_and_misspelt_buckets_are_refused_everywhere(path):
    for buckets in (False, True):
        with pytest.raises(InputError, match=r"mount the bucket|paths have no scheme"):
            refuse_scheme("--output", path, buckets=buckets)


@pytest.mark.parametrize(
    "path",
    [
        *("s3://b/..", "s3://b/x/..", "gs://b/../x", "gs://b/./x", "s3://..", "s3://b//x", "s3://b/x//", "gs://b//"),
        *("s3://b/x\r", "s3://b/x\n", "s3://b/a\tb", "s3://b/\udcff", f"s3://b/{'x' * 256}", f"s3://b/{'ü' * 128}"),
    ],
)
def test_a_path_in_a_bucket_that_has_no_local_copy_of_its_name_is_refused(path):
    """A program would work in the folder above the one of its output, or find an object that it did not write."""
    with pytest.raises(InputError, match=r"is not the name of a file or folder .*correct the path"):
        refuse_scheme("--output", path, buckets=True)


@pytest.mark.parametrize(
    "path", ["s3://b", "gs://b/", "s3://b/ünï code/a b/", "gs://b/a..b/.c/d.", f"s3://b/{'x' * 255}"]
)
def test_other_paths_in_buckets_pass(path):
    refuse_scheme("--output", path, buckets=True)


@pytest.mark.parametrize(("module", "flag"), flags_of(lambda role: role is Role.FLAGS))
def test_a_path_with_a_scheme_in_further_flags_is_refused(module, flag):
    function = getattr(importlib.import_module(module), function_of(module))
    with pytest.raises(InputError, match=f"{flag} s3://b/t: .*mount the bucket"):
        program.parse(function, command(module, flag, "--tokenizer=s3://b/t"))
    program.parse(function, command(module, flag, "--spark-master spark://host:7077"))


def test_a_configuration_behind_a_scheme_is_refused():
    with pytest.raises(InputError, match=r"configuration gs://b/mine\.py: a path must be on a file system"):
        program.load_config("gs://b/mine.py")


@pytest.mark.parametrize("path", ["a/b", "/a", "./gs://b", "a:b", "c:/x", "org/name", "../x:y/z", "data.csv:", "möbel"])
def test_other_paths_pass(path):
    @dataclasses.dataclass(frozen=True)
    class Arguments:
        output: typing.Annotated[str, Role.OUTPUT]

    program_arguments = Arguments(path)
    assert [argument.value for argument in path_arguments(program_arguments)] == [path]
    assert program.parse(takes(Arguments), ["--output", path]) == program_arguments


def takes(kind):
    def main(arguments) -> dict:
        """Says hello."""
        return {}

    main.__annotations__["arguments"] = kind
    return main
