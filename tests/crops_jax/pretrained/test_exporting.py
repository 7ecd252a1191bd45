import dataclasses
import json
import shutil

import numpy as np
import pytest

from crops_jax import pretrained
from crops_jax.embeddings.encoder import Encoder
from crops_jax.errors import InputError
from crops_jax.text import tokenizer
from launch import train as train_program
from tests.model_folders import (
    TEXTS,
    VOCABULARY,
    random_model,
    small_config,
    write_qwen_tokenizer,
    write_tokenizer,
)

HASHED = {
    "family": "hashed",
    "hashed_features": ("unigrams",),
    "hash_buckets": len(VOCABULARY) + 3,
    "feature_width": 14,
    "feed_forward_width": 22,
}
QWEN = {"heads": 6, "key_value_heads": 2, "head_width": 8, "layers": 1, "pooling": "last"}


def encoder_of(tmp_path, *, prompts=None, trained_dims=None, **encoder):
    if not (tmp_path / "tokenizer").exists():
        write_tokenizer(tmp_path / "tokenizer")
    config = small_config(**encoder)
    return Encoder(
        random_model(config),
        config=config,
        tokenizer_folder=tmp_path / "tokenizer",
        prompts=prompts,
        trained_dims=trained_dims,
    )


@pytest.mark.parametrize("shared", [True, False])
def test_a_hashed_tower_of_tokens_comes_back_as_it_went_out(tmp_path, shared):
    encoder = encoder_of(tmp_path, **HASHED, shared_towers=shared, prompts={"query": "the "})
    outcome = pretrained.export(encoder, tmp_path / "folder")
    assert outcome["dim"] == 30
    again = pretrained.load_encoder(tmp_path / "folder")
    limit = 40 if shared else 12
    assert again.config.encoder == dataclasses.replace(
        encoder.config.encoder,
        weights=str(tmp_path / "folder"),
        vocabulary_size=len(VOCABULARY) + 3,
        max_query_tokens=limit,
        heads=again.config.encoder.heads,
    )
    for tower in ("query", "document"):
        texts = [text for text in TEXTS if shared or len(text) < 40 or tower == "document"]
        if tower == "document" or not shared:
            np.testing.assert_array_equal(again.encode(texts, tower=tower), encoder.encode(texts, tower=tower))
    listed = json.loads((tmp_path / "folder" / "modules.json").read_text())
    kinds = [module["type"].rpartition(".")[2] for module in listed]
    assert kinds == (["Transformer", "Pooling", *["Dense"] * 3, "Normalize"] if shared else ["Router", "Normalize"])


DENSE = {"dense_widths": (11, 7), "dense_biases": (True, False), "dense_activations": ("tanh", "identity")}


@pytest.mark.parametrize("shared", [True, False])
def test_dense_modules_come_back_as_they_went_out(tmp_path, shared):
    encoder = encoder_of(tmp_path, layers=1, shared_towers=shared, trained_dims=(3, 7), **DENSE)
    outcome = pretrained.export(encoder, tmp_path / "folder")
    assert outcome["dim"] == encoder.dim == 7
    again = pretrained.load_encoder(tmp_path / "folder")
    assert again.trained_dims == (3, 7)
    texts = ["red lamp", "a"]
    for tower in ("query", "document"):
        expected = encoder.encode(texts, tower=tower)
        np.testing.assert_allclose(again.encode(texts, tower=tower), expected, atol=1e-6)
    described = json.loads(
        (tmp_path / "folder" / ("2_Dense" if shared else "query_2_Dense") / "config.json").read_text()
    )
    assert described["activation_function"] == "torch.nn.modules.activation.Tanh"
    listed = json.loads((tmp_path / "folder" / "modules.json").read_text())
    kinds = [module["type"].rpartition(".")[2] for module in listed]
    assert kinds == (["Transformer", "Pooling", "Dense", "Dense", "Normalize"] if shared else ["Router", "Normalize"])


def test_dense_modules_that_are_not_supported_are_named(tmp_path):
    pretrained.export(encoder_of(tmp_path, layers=1, **DENSE), tmp_path / "folder")
    file = tmp_path / "folder" / "3_Dense" / "config.json"
    settings = json.loads(file.read_text())
    for change, message in (
        ({"activation_function": "torch.nn.modules.activation.Softplus"}, "activation_function .*Softplus is not supp"),
        ({"activation_function": "other.Identity"}, "activation_function other.Identity is not supported"),
        ({"use_residual": True}, "use_residual True is not supported; it must be False"),
        ({"module_input_name": "token_embeddings"}, "module_input_name token_embeddings is not supported"),
        ({"scale": 2.0}, "field scale of a Dense module is not known"),
        ({"in_features": 12}, "in_features is 12, and the module before it gives 11 numbers"),
        ({"out_features": 8}, r"parameter tower/dense/1/kernel has shape \(11, 7\), expected \(11, 8\)"),
        ({"bias": True}, r"3_Dense: no tensor linear.bias"),
    ):
        file.write_text(json.dumps(settings | change))
        with pytest.raises(InputError, match=message):
            pretrained.load_encoder(tmp_path / "folder")
    # Where the field is missing, sentence-transformers takes Tanh.
    del settings["activation_function"]
    file.write_text(json.dumps(settings))
    assert pretrained.load_encoder(tmp_path / "folder").config.encoder.dense_activations == ("tanh", "tanh")
    listed = json.loads((tmp_path / "folder" / "modules.json").read_text())
    for order in ([0, 2, 1], [0, 1, 4, 2], [0, 1, 2, 3, 4, 2]):
        (tmp_path / "folder" / "modules.json").write_text(json.dumps([listed[i] for i in order]))
        with pytest.raises(InputError, match=r"expected Transformer, Pooling, optionally Dense .*found Transformer"):
            pretrained.load_encoder(tmp_path / "folder")


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_the_prompt_of_documents_is_exported_by_the_name_that_is_read_first(tmp_path, name):
    """sentence-transformers 6 adds an empty prompt "document" to a folder that has none, and takes that one."""
    encoder = encoder_of(tmp_path, prompts={"query": "the red ", name: "a lamp "})
    pretrained.export(encoder, tmp_path / "folder")
    settings = json.loads((tmp_path / "folder" / "config_sentence_transformers.json").read_text())
    assert (settings["prompts"]["query"], settings["prompts"]["document"]) == ("the red ", "a lamp ")
    again = pretrained.load_encoder(tmp_path / "folder")
    for tower in ("query", "document"):
        expected = encoder.encode(TEXTS[:2], tower=tower)
        np.testing.assert_allclose(again.encode(TEXTS[:2], tower=tower), expected, atol=1e-6)


def test_a_folder_of_tables_that_is_not_ours_is_named(tmp_path):
    pretrained.export(encoder_of(tmp_path, **HASHED), tmp_path / "folder")
    dense = tmp_path / "folder" / "2_Dense" / "config.json"
    settings = json.loads(dense.read_text())
    dense.write_text(json.dumps(settings | {"activation_function": "torch.nn.modules.activation.Tanh"}))
    with pytest.raises(InputError, match=r"modules.json: the Dense modules after a token table must be .*tanh, relu"):
        pretrained.load_encoder(tmp_path / "folder")
    dense.write_text(json.dumps(settings | {"out_features": 23}))
    with pytest.raises(InputError, match=r"in_features is 22, and the module before it gives 23 numbers"):
        pretrained.load_encoder(tmp_path / "folder")
    dense.write_text(json.dumps(settings))
    shutil.copy(tmp_path / "folder" / "model.safetensors", dense.with_name("model.safetensors"))
    with pytest.raises(InputError, match=r"2_Dense: no tensor linear.bias"):
        pretrained.load_encoder(tmp_path / "folder")
    modules = tmp_path / "folder" / "modules.json"
    listed = [module for module in json.loads(modules.read_text()) if "Dense" not in module["type"]]
    modules.write_text(json.dumps(listed))
    with pytest.raises(InputError, match=r"modules.json: 0 Dense modules follow a token table"):
        pretrained.load_encoder(tmp_path / "folder")


@pytest.mark.parametrize(
    ("encoder", "obstacle"),
    [
        (HASHED, None),
        ({}, None),
        (HASHED | {"hashed_features": ("unigrams", "text")}, "hashed_features unigrams text: .* cannot be exported"),
        (HASHED | {"hash_buckets": 20}, "hash_buckets 20 is less than encoder.vocabulary_size"),
        (QWEN | {"family": "qwen2"}, "transformers reads another tokenizer out of a folder of a qwen2 encoder"),
        ({"position_offset": 2}, r"position_offset 2 with padding token 0"),
    ],
)
def test_what_cannot_be_exported_is_known_from_the_configuration(tmp_path, encoder, obstacle):
    write_tokenizer(tmp_path / "tokenizer")
    config = small_config(**encoder).encoder
    found = pretrained.export_obstacle(config, tmp_path / "tokenizer")
    if obstacle is None:
        assert found is None
        return
    with pytest.raises(InputError, match=obstacle):
        pretrained.export(encoder_of(tmp_path, **encoder), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_tokenizer_of_a_run_is_compared_as_transformers_reads_it(tmp_path):
    """A run has a copy that can be read without transformers, which would choose another class beside a config.json."""
    write_tokenizer(tmp_path / "given")
    tokenizer.copy(tmp_path / "given", tmp_path / "tokenizer")
    config = small_config(**QWEN, family="qwen2").encoder
    obstacle = pretrained.export_obstacle(config, tmp_path / "tokenizer")
    assert obstacle is not None
    assert "transformers reads another tokenizer out of a folder of a qwen2 encoder" in obstacle


def test_a_qwen_tokenizer_is_no_obstacle(tmp_path):
    rows = write_qwen_tokenizer(tmp_path / "tokenizer")
    config = small_config(**QWEN, family="qwen2", vocabulary_size=rows).encoder
    assert pretrained.export_obstacle(config, tmp_path / "tokenizer") is None


def test_training_says_at_once_what_it_starts_from_and_what_will_not_be_exported(tmp_path, monkeypatch, capsys):
    import contextlib

    from crops_jax import training
    from crops_jax.runs import folder

    write_tokenizer(tmp_path / "run" / "tokenizer")
    monkeypatch.setattr(training, "check_machine", lambda config: None)
    monkeypatch.setattr(training, "enable_compilation_cache", lambda run: None)
    monkeypatch.setattr(training, "train", lambda config, **_: {"steps": 1})

    @contextlib.contextmanager
    def opened(run, **_):
        yield tmp_path / "run"

    monkeypatch.setattr(folder, "open_run", opened)

    def said(initial_run=None, **encoder):
        arguments = train_program.TrainArguments(
            config=small_config(**encoder), records="r", output=str(tmp_path / "run"), initial_run=initial_run
        )
        assert train_program.train(arguments)["steps"] == 1
        return capsys.readouterr().err

    assert "launch.export will refuse this run" in said(**QWEN, family="qwen2")
    assert said().startswith("the encoder starts from random weights; --encoder.weights names a pretrained one")
    assert said(initial_run="other") == ""


def test_dims_that_may_be_chosen_go_with_the_folder(tmp_path):
    encoder = encoder_of(tmp_path, layers=1, trained_dims=(6, 12, 30))
    pretrained.export(encoder, tmp_path / "folder")
    settings = json.loads((tmp_path / "folder" / "config_sentence_transformers.json").read_text())
    assert settings["matryoshka_dims"] == [6, 12]
    assert "truncate_dim" not in settings
    assert "the first 6, 12 components serve" in (tmp_path / "folder" / "README.md").read_text()
    again = pretrained.load_encoder(tmp_path / "folder")
    assert again.trained_dims == (6, 12, 30)
    with pytest.raises(InputError, match="the first 7 components were not trained"):
        again.encode(["lamp"], dim=7)
    (tmp_path / "folder" / "config_sentence_transformers.json").write_text(json.dumps({"matryoshka_dims": [30]}))
    with pytest.raises(InputError, match=r"matryoshka_dims must lie in \[1, 30\), found \[30\]"):
        pretrained.load_encoder(tmp_path / "folder")
    (tmp_path / "folder" / "config_sentence_transformers.json").write_text("{}")
    assert pretrained.load_encoder(tmp_path / "folder").encode(["lamp"], dim=7).shape == (1, 7)
