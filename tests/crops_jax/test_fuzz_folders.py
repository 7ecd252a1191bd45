"""Damaged manifests, embeddings, tokenizers, model folders and discriminators: refused, or what they hold is right."""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from safetensors.numpy import load as load_safetensors

from crops_jax import artifacts, embeddings, pretrained
from crops_jax.config import Config
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.discriminator import load as load_discriminator
from crops_jax.discriminator.lexical_features import CorpusStatistics
from crops_jax.pretrained import folder as model_folder
from crops_jax.pretrained.tensor_files import open_tensors
from crops_jax.text import tokenizer
from tests import fuzzing
from tests.fuzzing import ACCEPTED, REFUSED
from tests.model_folders import TEXTS, add_modules, write_bert

_IDS = [f"d{i}" for i in range(5)]
_VECTORS = np.arange(15, dtype=np.float32).reshape(5, 3)


def _make_manifest(folder: Path) -> None:
    inner = artifacts.new_manifest(program="data.mine", kind="labels", arguments={"alpha": 0.6}, inputs={}, content="a")
    (folder / "labels").mkdir()
    artifacts.write_manifest(folder / "labels", inner)
    artifacts.write_manifest(
        folder,
        artifacts.new_manifest(
            program="data.write_records",
            kind="records",
            arguments={"seed": 0},
            inputs={"labels": folder / "labels"},
            content="b",
        ),
    )


def _make_embeddings(folder: Path) -> None:
    layout = embeddings.Layout(rows=5, dim=3, shard_rows=2)
    manifest = artifacts.new_manifest(
        program="launch.embed", kind="embeddings", arguments={}, inputs={}, layout=layout._asdict()
    )
    artifacts.write_manifest(folder, manifest)
    for shard in range(layout.shards):
        first, last = layout.bounds(shard)
        embeddings.write_shard(folder, layout, shard, ids=_IDS[first:last], vectors=_VECTORS[first:last])


def _make_encoder(folder: Path) -> None:
    write_bert(folder)
    add_modules(folder, max_seq_length=20, prompts={"query": "q: "}, default_prompt_name="query")


def _make_discriminator(folder: Path) -> None:
    queries, documents = ["red shoe", "red shoe", "tie", "tie"], ["red shoe", "a tie", "a tie", "red shoe"]
    corpus = CorpusStatistics.from_texts(documents)
    LexicalDiscriminator.fit(queries, documents, np.array([1.0, 0.0, 1.0, 0.0]), corpus=corpus).save(folder)


@functools.cache
def _files(make: Callable[[Path], None]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        found = (file for file in Path(folder).rglob("*") if file.is_file())
        return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def _write_damaged(generator: Random, folder: Path, make: Callable[[Path], None], *names: str) -> set[str]:
    """Writes the folder with one or two of its files damaged or missing; returns which."""
    files = _files(make)
    damaged = set(generator.sample(names or sorted(files), min(len(names or files), generator.choice([1, 1, 1, 2]))))
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in damaged:
            (folder / name).write_bytes(content)
        elif generator.random() > 0.04:
            is_json = name.endswith(".json") and generator.random() < 0.9
            changed = (
                fuzzing.mutated_json_text(generator, json.loads(content))
                if is_json
                else fuzzing.mutated_bytes(generator, content)
            )
            (folder / name).write_bytes(changed)
    return {name for name in damaged if not (folder / name).exists() or (folder / name).read_bytes() != files[name]}


def manifest_case(generator: Random, folder: Path) -> str:
    _write_damaged(generator, folder, _make_manifest, "manifest.json")
    found = artifacts.read_manifest(folder)
    assert artifacts.fingerprint(folder) == found["fingerprint"]
    assert artifacts.describe_input(folder)["manifest"] == found
    # What other programs ask of a manifest has the type that they count on, however far back.
    while found is not None:
        assert all(isinstance(found[name], str) for name in ("program", "kind", "fingerprint"))
        assert isinstance(found["arguments"], dict)
        assert all(isinstance(value["fingerprint"], str) for value in found["inputs"].values())
        found = next((value["manifest"] for value in found["inputs"].values() if "manifest" in value), None)
    artifacts.new_manifest(program="x", kind="run", arguments={}, inputs={"records": folder})
    return ACCEPTED


def embeddings_case(generator: Random, folder: Path) -> str:
    damaged = _write_damaged(generator, folder, _make_embeddings)
    found, layout = embeddings.open_embeddings(folder), embeddings.read_layout(folder)
    assert len(found.ids) == len(found.array()) == layout.rows
    if damaged <= {"manifest.json"} and layout.rows:
        assert found.ids == _IDS
        np.testing.assert_array_equal(found.array(), _VECTORS)
    # data.inspect and a resumed launch.embed compare each shard with the digest that its ids carry.
    whole = [
        embeddings.shard_is_finished(folder, layout, shard, ids=ids)
        for shard, (ids, _) in enumerate(embeddings.iterate(found))
    ]
    if all(whole) and layout.rows:
        np.testing.assert_array_equal(found.array(), _VECTORS)
    return ACCEPTED if all(whole) else REFUSED


def tokenizer_case(generator: Random, folder: Path) -> str:
    names = [name for name in _files(_make_encoder) if name.startswith("tokenizer")]
    _write_damaged(generator, folder, _make_encoder, *names)
    loaded = tokenizer.load(folder)
    tokens = loaded.encode(TEXTS, max_tokens=16)
    assert len(tokens) == len(TEXTS)
    assert all(len(one) <= 16 and one.max(initial=0) < loaded.vocabulary_size for one in tokens)
    assert tokenizer.load(folder).fingerprint == loaded.fingerprint
    return ACCEPTED


def model_folder_case(generator: Random, folder: Path) -> str:
    names = [name for name in _files(_make_encoder) if name.endswith(".json") and "tokenizer.json" not in name]
    _write_damaged(generator, folder, _make_encoder, *names)
    found = model_folder.describe(folder)
    assert found.towers == (folder,)
    assert all(isinstance(text, str) for text in (*found.prompts.values(), *found.prompts, found.default_prompt))
    longest = found.sizes["max_positions"] - found.sizes["position_offset"]
    assert 0 < found.max_query_tokens <= longest
    config = Config().replace(encoder={"weights": str(folder), "max_query_tokens": 3, "max_document_tokens": 3})
    resolved = pretrained.resolve_config(config).encoder
    assert all(getattr(resolved, name) == value for name, value in found.sizes.items())
    return ACCEPTED


def safetensors_case(generator: Random, folder: Path) -> str:
    content = _files(_make_encoder)["model.safetensors"]
    length = int.from_bytes(content[:8], "little")
    header = content[: 8 + length]
    if generator.random() < 0.4:
        changed = json.dumps(fuzzing.mutated_json(generator, json.loads(header[8:])), ensure_ascii=True).encode()
        content = len(changed).to_bytes(8, "little") + changed + content[8 + length :]
    elif generator.random() < 0.7:
        content = fuzzing.mutated_bytes(generator, header) + content[8 + length :]
    else:
        content = fuzzing.mutated_bytes(generator, content)
    (folder / "model.safetensors").write_bytes(content)
    found = {name: tensor[...] for name, tensor in open_tensors(folder).items()}
    expected = load_safetensors(content)
    assert set(found) == set(expected)
    assert all(found[name].shape == expected[name].shape for name in found)
    return ACCEPTED


def discriminator_case(generator: Random, folder: Path) -> str:
    damaged = _write_damaged(generator, folder, _make_discriminator)
    found = load_discriminator(folder)
    scores = found.score(["red shoe", "tie", ""], ["a red shoe", "", "tie"])
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()
    if not damaged:
        assert found.score(["tie"], ["a tie"])[0] > 0.5
    found.save(folder / "again")
    np.testing.assert_array_equal(
        load_discriminator(folder / "again").score(["tie"], ["a tie"]), found.score(["tie"], ["a tie"])
    )
    return ACCEPTED


@fuzzing.sizes(manifest_case)
def test_manifests(number, tmp_path):
    fuzzing.run(manifest_case, number, tmp_path, accepted=1 / 30, refused=1 / 30)


@fuzzing.sizes(embeddings_case)
def test_embeddings(number, tmp_path):
    fuzzing.run(embeddings_case, number, tmp_path, refused=1 / 2)


@fuzzing.sizes(tokenizer_case)
def test_tokenizers(number, tmp_path):
    fuzzing.run(tokenizer_case, number, tmp_path, accepted=1 / 20, refused=1 / 20)


@fuzzing.sizes(model_folder_case)
def test_model_folders(number, tmp_path):
    fuzzing.run(model_folder_case, number, tmp_path, accepted=1 / 20, refused=1 / 20)


@fuzzing.sizes(safetensors_case)
def test_weights(number, tmp_path):
    fuzzing.run(safetensors_case, number, tmp_path, accepted=1 / 20, refused=1 / 20)


@fuzzing.sizes(discriminator_case)
def test_discriminators(number, tmp_path):
    fuzzing.run(discriminator_case, number, tmp_path, accepted=1 / 20, refused=1 / 20)
