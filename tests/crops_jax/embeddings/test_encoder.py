import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crops_jax import artifacts, pretrained
from crops_jax.embeddings.encoder import Encoder, encoder_row_widths
from crops_jax.errors import InputError, NamedFailure
from crops_jax.runs import checkpoints
from crops_jax.runs.encoder import open_encoder
from tests.model_folders import (
    TEXTS,
    VOCABULARY,
    random_model,
    random_parameters,
    small_config,
    write_bert,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    config = small_config(shared_towers=False, layers=1)
    return Encoder(random_model(config), config=config, tokenizer_folder=folder)


def write_run(folder, config):
    """A finished run, as far as an encoder is concerned, but for its checkpoint."""
    write_tokenizer(folder / "tokenizer")
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    manifest = artifacts.new_manifest(program="launch.train", kind="run", arguments={}, inputs={})
    artifacts.write_manifest(folder, manifest)


def test_vectors_keep_the_order_of_the_texts(small):
    texts = TEXTS * 3
    vectors = small.encode(texts)
    assert vectors.shape == (30, 30)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[:10], vectors[10:20], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_allclose(small.encode([texts[i] for i in order]), vectors[order], atol=1e-5)


def test_a_text_alone_is_the_text_among_others(small):
    among = small.encode(TEXTS)
    alone = np.concatenate([small.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, among, atol=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 100, 16384])
def test_batches_change_nothing(small, batch_tokens):
    texts = [f"{word} {i}" for i in range(70) for word in ("lamp", "garden hose " * (i % 9))]
    np.testing.assert_allclose(small.encode(texts, batch_tokens=batch_tokens), small.encode(texts), atol=1e-5)


def test_vectors_are_those_of_the_model(small):
    tokens = small.tokenizer.encode(["blue lamp"], max_tokens=40)[0]
    np.testing.assert_allclose(small.encode(["blue lamp"])[0], small.model.encode_documents(tokens[None])[0], atol=1e-5)


def test_no_texts_and_one_string(small):
    assert small.encode([]).shape == (0, 30)
    with pytest.raises(TypeError, match="found one string"):
        small.encode("lamp")
    for texts in ([None], ["lamp", 0]):
        with pytest.raises(TypeError, match=r"texts must be a sequence of strings, found (NoneType|int) in it"):
            small.encode(texts)
    with pytest.raises(ValueError, match="tower must be query or document, found 'passage'"):
        small.encode(["lamp"], tower="passage")
    with pytest.raises(ValueError, match="batch_tokens must be positive"):
        small.encode(["lamp"], batch_tokens=0)


def test_each_tower_has_its_weights_and_its_limit(small):
    query, document = (small.encode(["red lamp"], tower=tower) for tower in ("query", "document"))
    assert np.abs(query - document).max() > 0.01
    np.testing.assert_array_equal(small.encode(["red lamp"]), document)
    long, cut = "red lamp " * 30, "red lamp " * 5
    np.testing.assert_allclose(
        small.encode([long, cut], tower="query")[0], small.encode([cut], tower="query")[0], atol=1e-5
    )
    assert np.abs(np.subtract(*small.encode([long, cut], tower="document"))).max() > 0.01


def test_leading_components_are_normalised_again(small):
    whole, first = small.encode(["red lamp", "", "hose"]), small.encode(["red lamp", "", "hose"], dim=7)
    assert first.shape == (3, 7)
    np.testing.assert_allclose(first, whole[:, :7] / np.linalg.norm(whole[:, :7], axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(small.encode(["hose"], dim=30), whole[2:])
    assert small.encode([], dim=7).shape == (0, 7)
    for dim in (0, 31):
        with pytest.raises(InputError, match=f"1 to 30 components, found dim {dim}"):
            small.encode(["hose"], dim=dim)


def test_few_shapes_are_compiled(small, monkeypatch):
    shapes = set()

    def record(self, batch, tower, dim):
        shapes.add(batch.tokens.shape)
        return np.zeros((len(batch.texts), 30), np.float32)

    monkeypatch.setattr(Encoder, "_run", record)
    long = Encoder(
        small.model,
        config=small.config.replace(encoder={"max_document_tokens": 77}),
        tokenizer_folder=small.tokenizer_folder,
    )
    generator = np.random.default_rng(0)
    for count in (1, 2, 3, 7, 9, 63, 65, 130, 200, 517, 2000):
        long.encode(["lamp " * int(n) for n in generator.integers(0, 90, count)], batch_tokens=8192)
    assert {width for _, width in shapes} == {64, 80}
    assert len(shapes) <= 6


def test_row_widths_are_powers_of_two_up_to_the_limit():
    assert encoder_row_widths(3) == (8,)
    assert encoder_row_widths(64) == (64,)
    assert encoder_row_widths(100) == (64, 104)
    assert encoder_row_widths(512) == (64, 128, 256, 512)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_named_with_its_text(tmp_path, value):
    """One row of the token table is damaged, so only texts with that token have such a vector."""
    folder = write_bert(tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][VOCABULARY.index("lamp")] = value
    save_file(tensors, folder / "model.safetensors")
    encoder = pretrained.load_encoder(folder)
    assert np.isfinite(encoder.encode(["red shoe", "blue hose"])).all()
    with pytest.raises(NamedFailure, match=r"bert: the vector of the text 'blue lamp' is not finite, so"):
        encoder.encode(["red shoe", "blue lamp", "lamp"])


def test_a_tokenizer_beyond_the_vocabulary_is_refused(tmp_path):
    write_tokenizer(tmp_path)
    config = small_config(vocabulary_size=6, layers=1)
    odd = Encoder(random_model(config), config=config, tokenizer_folder=tmp_path)
    with pytest.raises(InputError, match="beyond the 6 rows"):
        odd.encode(["garden"])


def test_the_fingerprint_follows_weights_limits_and_prompts(small, tmp_path):
    config, folder = small.config, small.tokenizer_folder

    def fingerprint(model=None, *, config=config, **settings):
        return Encoder(model or small.model, config=config, tokenizer_folder=folder, **settings).fingerprint

    others = [
        fingerprint(random_model(config, seed=1)),
        fingerprint(config=config.replace(encoder={"max_query_tokens": 13})),
        fingerprint(prompts={"query": "q: "}),
    ]
    assert fingerprint() == small.fingerprint
    assert len({small.fingerprint, *others}) == 4
    assert fingerprint(config=config.replace(encoder={"weights": "elsewhere"})) == small.fingerprint


def test_a_run_opens_with_its_best_checkpoint(tmp_path, monkeypatch):
    config = small_config(layers=1)
    parameters = random_parameters(config, seed=5)
    write_run(tmp_path, config)
    monkeypatch.setattr(checkpoints, "restore_parameters", lambda run, *, which: {"best": parameters}[which])
    opened = open_encoder(tmp_path)
    assert opened.config == config
    expected = Encoder(random_model(config, seed=5), config=config, tokenizer_folder=tmp_path / "tokenizer")
    assert opened.fingerprint == expected.fingerprint
    assert opened.trained_dims == (30,)
    shortened = config.replace(loss={"matryoshka_dims": (4, 8)})
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(shortened)))
    assert open_encoder(tmp_path).checked_dim(8) == 8
    with pytest.raises(InputError, match=r"the first 5 components were not trained .*vectors of 4, 8, 30: choose"):
        open_encoder(tmp_path).encode(["hose"], dim=5)

    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(small_config(layers=2))))
    with pytest.raises(InputError, match="does not fit config"):
        open_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"encoder": {"depth": 3}}')
    with pytest.raises(InputError, match="not a configuration of this version"):
        open_encoder(tmp_path)


def test_other_directories_of_ours_are_not_encoders(tmp_path):
    manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs={})
    artifacts.write_manifest(tmp_path, manifest)
    with pytest.raises(InputError, match="holds labels, not a run"):
        open_encoder(tmp_path)


def test_a_folder_opens_as_an_untrained_encoder(tmp_path):
    assert open_encoder(write_bert(tmp_path / "bert")).dim == 30


def test_the_two_sides_have_functions_of_their_own_and_a_similarity(small):
    queries, documents = small.encode_query(TEXTS[:2]), small.encode_document(TEXTS[2:5], dim=None)
    np.testing.assert_array_equal(queries, small.encode(TEXTS[:2], tower="query"))
    np.testing.assert_array_equal(documents, small.encode(TEXTS[2:5], tower="document"))
    np.testing.assert_array_equal(small.similarity(queries, documents), queries @ documents.T)
    with pytest.raises(ValueError, match=r"similarity: vectors must be \[queries, dim\]"):
        small.similarity(queries[0], documents)
    with pytest.raises(ValueError, match=r"similarity: .* found \(2, 5\) and"):
        small.similarity(queries[:, :5], documents)
    with pytest.raises(ValueError, match="similarity: vectors must be arrays of JAX or NumPy, found list"):
        small.similarity(queries, documents.tolist())


def test_an_encoder_shows_its_sizes_in_one_line(small):
    assert repr(small) == (
        "Encoder(bert, layers 1, dim 30, two towers, at most 12 tokens of a query and 40 of a document)"
    )
