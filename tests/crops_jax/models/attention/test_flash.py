"""Attention on packed rows: each path against the plain one, texts of a row kept apart exactly, and lowering."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh

from crops_jax.config import EncoderConfig
from crops_jax.models.attention import flash as flash_attention
from crops_jax.models.attention import gpu_kernel
from crops_jax.models.attention.api import attention_that_runs
from crops_jax.models.attention.plain import attend, visible
from crops_jax.models.dual_encoder import DualEncoder
from tests.gpu_lowering import lowers_triton

_PATHS = {"gpu": gpu_kernel.attend_segments, "tpu": flash_attention._splash}


def mesh_of(**axes):
    devices = np.asarray(jax.devices()[: int(np.prod(list(axes.values())))]).reshape(list(axes.values()))
    return Mesh(devices, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def packing(random, rows, tokens, *, texts=4):
    """Segments of rows of up to `texts` texts each, with padding after the last and sometimes inside."""
    segments = np.full((rows, tokens), -1, np.int32)
    for row in segments:
        cuts = np.sort(random.choice(np.arange(1, tokens), texts, replace=False))
        for number, (start, end) in enumerate(zip([0, *cuts[:-1]], cuts)):
            row[start : end - random.integers(0, 2)] = number
    return segments


def states(random, rows, tokens, heads, groups, width):
    return [random.normal(size=(rows, tokens, n, width)).astype(np.float32) for n in (heads, groups, groups, heads)]


def with_gradients(function, *arguments, cotangent):
    def run(*arguments):
        found, pull = jax.vjp(function, *arguments)
        return found, pull(cotangent.reshape(found.shape))

    return jax.tree.leaves(jax.jit(run)(*arguments))


def assert_as_plain(path, causal, sizes, *, segments=None, tolerance=1e-5):
    random = np.random.default_rng(0)
    *arguments, cotangent = states(random, *sizes)
    segments = jnp.asarray(packing(random, *sizes[:2]) if segments is None else segments)
    mask = visible(segments, segments, causal=causal)
    plain = with_gradients(lambda *qkv: attend(*qkv, mask), *arguments, cotangent=cotangent)
    flash = with_gradients(lambda *qkv: _PATHS[path](*qkv, segments, causal, True), *arguments, cotangent=cotangent)
    for one, other in zip(plain, flash, strict=True):
        assert np.isfinite(other).all()
        assert np.abs(one - other.reshape(one.shape)).max() <= tolerance * np.abs(one).max()


def test_the_gpu_kernels_do_as_plain_attention():
    assert_as_plain("gpu", True, (2, 70, 4, 2, 12))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "causal", "sizes"),
    [
        ("gpu", False, (2, 33, 2, 2, 8)),
        ("gpu", True, (3, 16, 3, 1, 16)),
        ("tpu", True, (2, 40, 4, 2, 64)),
        ("tpu", False, (2, 130, 2, 2, 32)),
    ],
)
def test_every_path_does_as_plain_attention(path, causal, sizes):
    assert_as_plain(path, causal, sizes)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["gpu", "tpu"])
def test_rows_of_padding_alone_stay_finite(path):
    assert_as_plain(path, False, (2, 24, 2, 2, 8), segments=np.full((2, 24), -1, np.int32))


_WIDTH = 16


def tower(family, *, tokens):
    """A tower in which every place of every row has a token of its own, twice."""
    sizes = {"width": _WIDTH, "layers": 2, "heads": 4, "feed_forward_width": 16, "max_positions": 64}
    groups = {} if family == "bert" else {"key_value_heads": 2, "pooling": "last"}
    limits = {"max_query_tokens": 8, "max_document_tokens": 8}
    config = EncoderConfig(family=family, vocabulary_size=2 * tokens, **sizes, **groups, **limits)
    return DualEncoder(config, initial_temperature=0.05, rngs=nnx.Rngs(params=0))


def embeddings_and_input_gradients(model, *, shape, flash=None):
    """A function of tokens and segments: embeddings of all texts, and the gradient in the input of each token."""
    random = np.random.default_rng(5)
    graph, state = nnx.split(model)
    pull = random.normal(size=(shape[0], shape[1] // 4, _WIDTH)).astype(np.float32)

    def run(tokens, segments):
        table = state["tower"]["token_embedding"]["embedding"]

        def embed(values):
            state["tower"]["token_embedding"]["embedding"] = table.replace(values)
            return nnx.merge(graph, state).encode_rows(tokens, segments, tower="query", flash=flash)

        embeddings, back = jax.vjp(embed, table[...])
        # No two places have the same token.
        return embeddings, back(pull)[0][tokens]

    return jax.jit(run)


def assert_isolated(family, *, rows, row_tokens, flash=None):
    """Changes the tokens of one text in each row: nothing of the others changes by a single bit."""
    random = np.random.default_rng(1)
    count = rows * row_tokens
    segments = packing(random, rows, row_tokens, texts=row_tokens // 4)
    tokens = np.where(segments >= 0, np.arange(count, dtype=np.int32).reshape(rows, row_tokens), -1)
    chosen = segments[np.arange(rows), random.integers(0, row_tokens // 2, rows)]
    changed = (segments == chosen[:, None]) & (segments >= 0)
    run = embeddings_and_input_gradients(tower(family, tokens=count), shape=tokens.shape, flash=flash)
    before, after = run(tokens, segments), run(np.where(changed, tokens + count, tokens), segments)
    texts = np.arange(before[0].shape[1])[None, :] == chosen[:, None]
    np.testing.assert_array_equal(np.asarray(before[0])[~texts], np.asarray(after[0])[~texts])
    others = ~changed & (segments >= 0)
    np.testing.assert_array_equal(np.asarray(before[1])[others], np.asarray(after[1])[others])
    assert np.isfinite(before[0]).all()
    assert np.isfinite(after[1]).all()
    # The test can fail: what was changed did change, and gradients are there.
    assert (np.abs(before[0] - after[0])[texts & changed.any(axis=1)[:, None]].max(axis=1) > 0).all()
    assert (np.abs(before[1][others]).max(axis=1) > 0).mean() > 0.2


@pytest.mark.parametrize("family", ["bert", pytest.param("qwen2", marks=pytest.mark.slow)])
def test_texts_of_a_row_are_kept_apart_over_a_thousand_packings(family):
    assert_isolated(family, rows=1000, row_tokens=16)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "qwen2"])
@pytest.mark.parametrize("path", ["gpu", "tpu"])
def test_flash_attention_keeps_texts_apart(monkeypatch, family, path):
    """Over data and model axes; blocks of 64 and 128 tokens hold several texts."""
    interpreted = {"cpu": lambda *arguments: _PATHS[path](*arguments, True)}
    monkeypatch.setattr(flash_attention, "_KERNELS", interpreted)
    assert_isolated(family, rows=8, row_tokens=80, flash=mesh_of(data=2, fsdp=1, model=2))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_a_tower_with_flash_attention_gives_the_same_vectors(monkeypatch, family):
    interpreted = {"cpu": lambda *arguments: _PATHS["gpu"](*arguments, True)}
    monkeypatch.setattr(flash_attention, "_KERNELS", interpreted)
    segments = packing(np.random.default_rng(2), 4, 24)
    tokens = np.where(segments >= 0, np.arange(96, dtype=np.int32).reshape(4, 24), -1)
    model = tower(family, tokens=96)
    plain, flash = (
        embeddings_and_input_gradients(model, shape=tokens.shape, flash=mesh)(tokens, segments)
        for mesh in (None, mesh_of(data=2, fsdp=1, model=1))
    )
    for one, other in zip(plain, flash, strict=True):
        real = np.asarray(segments >= 0) if one.shape[1] == 24 else slice(None)
        assert np.abs(one - other)[real].max() <= 1e-5 * np.abs(one).max()


@lowers_triton
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("tokens", "heads", "groups", "width"), [(40, 12, 12, 32), (128, 14, 2, 64)])
def test_the_gpu_kernels_lower_for_a_gpu_that_is_not_here(dtype, tokens, heads, groups, width):
    arrays = [jax.ShapeDtypeStruct((8, tokens, n, width), dtype) for n in (heads, groups, groups)]

    def gradients(query, key, value, segments):
        def total(*arrays):
            return gpu_kernel.attend_segments(*arrays, segments, True).astype(jnp.float32).sum()

        return jax.grad(total, argnums=(0, 1, 2))(query, key, value)

    traced = jax.jit(gradients).trace(*arrays, jax.ShapeDtypeStruct((8, tokens), jnp.int32))
    assert traced.lower(lowering_platforms=("cuda",)).as_text().count("triton") >= 3


def platform_mesh(platform):
    class Device:
        pass

    device = Device()
    device.platform = platform

    class Devices:
        devices = np.asarray([device])

    return Devices()


def test_auto_is_flash_where_it_pays_and_a_name_never_stands_for_another():
    def runs(platform, row_tokens=512, **fields):
        return attention_that_runs(EncoderConfig(**fields), mesh=platform_mesh(platform), row_tokens=row_tokens)

    assert runs("tpu") == "flash"
    assert runs("tpu", 128) == runs("tpu", dropout=0.1) == runs("gpu") == runs("cpu") == "plain"
    assert runs("tpu", attention="plain") == "plain"
    assert runs("tpu", 64, attention="flash") == runs("gpu", attention="flash") == "flash"
    with pytest.raises(ValueError, match="'flash' cannot run on cpu"):
        runs("cpu", attention="flash")
    with pytest.raises(ValueError, match="has no dropout"):
        EncoderConfig(attention="flash", dropout=0.1)
    with pytest.raises(ValueError, match="tower without any"):
        EncoderConfig(family="hashed", attention="flash")


_COMPILE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from crops_jax.models.attention.flash import flash_attend

dtype, tokens, heads, groups, width, causal = sys.argv[1], *map(int, sys.argv[2:])
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
shape = (2, 1, 2)
mesh = Mesh(np.asarray(devices).reshape(shape), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
arrays = [jax.ShapeDtypeStruct((64, tokens, n, width), dtype, sharding=rows) for n in (heads, groups, groups)]
segments = jax.ShapeDtypeStruct((64, tokens), jnp.int32, sharding=rows)

def total(query, key, value, segments):
    mixed = flash_attend(query, key, value, segments=segments, causal=bool(causal), mesh=mesh)
    return (mixed.astype(jnp.float32) ** 2).sum()

lowered = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(*arrays, segments)
temporary = lowered.compile().memory_analysis().temp_size_in_bytes
print(json.dumps({"kernels": lowered.as_text().count("tpu_custom_call"), "temporary": temporary}))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (make dev)")
@pytest.mark.parametrize("case", [("bfloat16", 512, 14, 2, 64, 1), ("float32", 128, 12, 12, 32, 0)])
def test_it_compiles_for_a_tpu_that_is_not_attached(case):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        # Several compilers may run side by side: none of them opens a device.
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
        "PYTHONPATH": os.getcwd(),
    }
    command = [sys.executable, "-c", _COMPILE, *map(str, case)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kernels"] >= 3
    _, tokens, heads, *_ = case
    # Never the scores of a device's 32 rows and its heads, in float32.
    assert found["temporary"] < 32 * (heads // 2) * tokens * tokens * 4 or tokens < 512
