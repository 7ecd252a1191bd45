import dataclasses
import json
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest
from huggingface_hub import errors
from safetensors.numpy import load_file, save_file

from crops_jax import pretrained
from crops_jax.config import Config, EncoderConfig
from crops_jax.embeddings.encoder import Encoder
from crops_jax.errors import InputError, NamedFailure
from crops_jax.pretrained.config_json import known_fields, read_sizes
from crops_jax.pretrained.folder import describe
from tests.model_folders import (
    ONE_DEVICE,
    TEXTS,
    add_modules,
    minilm,
    random_model,
    small_config,
    write_bert,
    write_qwen_tokenizer,
    write_tokenizer,
)


def edit(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def leaves(encoder):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(encoder.parameters)}


def same_parameters(one, other):
    one, other = leaves(one), leaves(other)
    assert set(one) == set(other)
    return all(np.array_equal(one[path], other[path]) for path in one if "temperature" not in path)


def test_minilm_finds_the_paraphrase():
    encoder = pretrained.load_encoder(minilm())
    assert encoder.dim == 384
    assert encoder.max_tokens("document") == 256
    texts = ["How do I bake bread?", "Instructions for baking a loaf", "The stock market fell on Tuesday"]
    scores = encoder.encode(texts) @ encoder.encode(texts).T
    np.testing.assert_allclose(scores.diagonal(), 1, atol=1e-6)
    np.testing.assert_allclose(scores[0, 1:], [0.8465, 0.0660], atol=2e-3)


def test_resolve_config_takes_sizes_and_pooling_from_the_folder(tmp_path):
    folder = add_modules(write_bert(tmp_path / "bert"), pooling={"pooling_mode": "cls"})
    config = Config().replace(encoder={"weights": str(folder), "dropout": 0.1, "max_document_tokens": 50})
    resolved = pretrained.resolve_config(config).encoder
    assert (resolved.width, resolved.layers, resolved.heads, resolved.feed_forward_width) == (30, 2, 3, 52)
    assert (resolved.pooling, resolved.max_positions, resolved.dropout) == ("first", 77, 0.1)
    assert (resolved.max_query_tokens, resolved.max_document_tokens) == (32, 50)
    assert pretrained.resolve_config(Config()) == Config()
    with pytest.raises(InputError, match=r"max_document_tokens must lie in \[3, .*\[3, 77\], found 128"):
        pretrained.resolve_config(Config().replace(encoder={"weights": str(folder)}))


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_prefixed_and_sharded_and_bfloat16_weights(tmp_path, prefix):
    whole = pretrained.load_encoder(write_bert(tmp_path / "whole"))
    folder = write_bert(tmp_path / "shards", prefix=prefix)
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    names = sorted(renamed)
    for shard, part in enumerate((names[::2], names[1::2])):
        save_file({name: renamed[name] for name in part}, folder / f"model-{shard}.safetensors")
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    assert same_parameters(pretrained.load_encoder(folder), whole)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match=r"model-1.safetensors: no such file"):
        pretrained.load_encoder(folder)


def test_half_precision_weights_become_float32(tmp_path):
    folder = write_bert(tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: np.asarray(t, jax.numpy.bfloat16) for name, t in tensors.items()}, folder / "model.safetensors")
    table = pretrained.load_encoder(folder).parameters["tower"]["token_embedding"]["embedding"]
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, tensors["embeddings.word_embeddings.weight"], rtol=2**-8)


def test_token_limits_are_those_of_sentence_transformers(tmp_path):
    def limit(**settings):
        folder = write_bert(tmp_path / "limits", **{k: v for k, v in settings.items() if k != "max_seq_length"})
        return pretrained.load_encoder(add_modules(folder, max_seq_length=settings.get("max_seq_length")))

    assert limit().max_tokens("query") == 77
    assert limit(max_length=50).max_tokens("document") == 50
    assert limit(max_length=50, max_seq_length=60).max_tokens("document") == 60
    assert pretrained.load_encoder(tmp_path / "limits", max_tokens=9).max_tokens("query") == 9
    with pytest.raises(InputError, match=r"\[3, 77\].*found 78"):
        pretrained.load_encoder(tmp_path / "limits", max_tokens=78)
    with pytest.raises(InputError, match=r"max_tokens must be a whole number in \[3, 77\].*, found 5.5"):
        pretrained.load_encoder(tmp_path / "limits", max_tokens=5.5)
    shutil.rmtree(tmp_path / "limits")
    assert pretrained.load_encoder(write_bert(tmp_path / "limits", position_offset=2)).max_tokens("query") == 75


def test_prompts_are_the_folders(tmp_path):
    prompts = {"query": "the red ", "passage": "a lamp ", "document": ""}
    folder = add_modules(write_bert(tmp_path / "bert"), prompts=prompts)
    plain, prompted = pretrained.load_encoder(write_bert(tmp_path / "plain")), pretrained.load_encoder(folder)
    for tower, prompt in (("query", "the red "), ("document", "a lamp "), (None, "")):
        expected = plain.encode([prompt + text for text in TEXTS[:3]])
        np.testing.assert_allclose(prompted.encode(TEXTS[:3], tower=tower), expected, atol=1e-6)
    add_modules(folder, prompts=prompts, default_prompt_name="query")
    expected = plain.encode(["the red hose"])
    np.testing.assert_allclose(pretrained.load_encoder(folder).encode(["hose"]), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"model_type": "deberta-v2"}, "model_type deberta-v2 is not supported"),
        ("config.json", {"hidden_act": "relu"}, "hidden_act relu is not supported"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type relative_key"),
        ("config.json", {"is_decoder": True}, "is_decoder True"),
        ("config.json", {"num_hidden_layers": None}, "num_hidden_layers must be a whole number, found null"),
        ("config.json", {"num_hidden_layers": 3}, "no tensor encoder.layer.2.attention.self.query.weight"),
        ("config.json", {"intermediate_size": 53}, r"shape \(52, 30\), expected \(30, 53\)|shape .* expected .*53"),
        ("config.json", {"is_causal": True}, "is_causal True is not supported; it must be False"),
        ("config.json", {"auto_map": {"AutoModel": "modeling.Bert"}}, "auto_map is not supported: it names code"),
        ("config.json", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config is not supported"),
        ("config.json", {"alibi": False}, "field alibi of a bert is not known"),
        ("config_sentence_transformers.json", {"truncate_dim": 31}, r"truncate_dim must lie in \[1, 30\], found 31"),
        ("config_sentence_transformers.json", {"default_prompt_name": "p"}, "default_prompt_name 'p' is none of the"),
        ("1_Pooling/config.json", {"pooling_mode_middle": True}, "pooling_mode_middle is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pooling max is not supported"),
        ("1_Pooling/config.json", {"scale": 2.0}, "field scale of a Pooling module is not known"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling max and mean is not supported"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt false"),
        (
            "sentence_bert_config.json",
            {"config_args": {"num_hidden_layers": 1}},
            "config_args.num_hidden_layers is not",
        ),
        ("sentence_bert_config.json", {"processor_kwargs": {"truncation_side": "left"}}, "truncation_side is not supp"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task fill-mask is not supported"),
        ("sentence_bert_config.json", {"query_expansion": {"k": 1}}, "query_expansion .* may change the vectors"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, file, fields, message):
    folder = add_modules(write_bert(tmp_path / "bert"), max_seq_length=9, prompts={"query": "q: "})
    edit(folder / file, **fields)
    with pytest.raises(InputError, match=message):
        pretrained.load_encoder(folder)


def test_settings_of_a_transformer_that_change_no_vector_are_taken(tmp_path):
    folder = add_modules(write_bert(tmp_path / "bert"))
    whole = pretrained.load_encoder(folder)
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "unpad_inputs": False,
        "query_length": None,
        "processing_kwargs": {},
        "model_args": {"torch_dtype": "float32", "trust_remote_code": True},
    }
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    np.testing.assert_array_equal(pretrained.load_encoder(folder).encode(["hose"]), whole.encode(["hose"]))


@pytest.mark.parametrize(
    "kind",
    [
        "bert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "mpnet",
        "nomic_bert",
        "modernbert",
        "gemma3_text",
        "qwen2",
        "qwen3",
    ]
    + ["mistral"],
)
def test_every_field_of_the_configurations_of_transformers_is_known(kind):
    """A field that a new version adds is read, checked or declared without effect before folders with it are read."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    configuration = CONFIG_MAPPING[kind]()
    assert set(configuration.to_dict()) <= known_fields(kind)
    assert {"is_causal", "auto_map", "quantization_config"} <= known_fields(kind)
    others = {"alibi", "window_size", "use_bidirectional_attention"}
    assert others & known_fields(kind) == ({"use_bidirectional_attention"} if kind == "gemma3_text" else set())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"is_causal": False}, "is_causal False is not supported; it must be True"),
        ({"use_sliding_window": True}, "use_sliding_window True is not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has 'sliding_attention'"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "field partial_rotary_factor of"),
        ({"rope_scaling": {"type": "yarn"}}, "rotary positions of type yarn"),
        ({"use_qk_norm": True}, "field use_qk_norm of a qwen2 is not known"),
    ],
)
def test_a_qwen_that_computes_otherwise_is_named(tmp_path, fields, message):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": 16, "num_key_value_heads": 1}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "qwen2", **sizes}))
    assert read_sizes(file)["family"] == "qwen2"
    edit(file, **fields)
    with pytest.raises(InputError, match=message):
        read_sizes(file)


def test_no_text_is_longer_than_the_window_of_a_mistral(tmp_path):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 8}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": 9000}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "mistral", **sizes}))
    # What transformers assumes where the fields are missing.
    assert (read_sizes(file)["max_positions"], read_sizes(file)["key_value_heads"]) == (4096, 8)
    edit(file, sliding_window=100, num_key_value_heads=2)
    assert (read_sizes(file)["max_positions"], read_sizes(file)["key_value_heads"]) == (100, 2)
    edit(file, sliding_window=None, num_key_value_heads=None)
    assert (read_sizes(file)["max_positions"], read_sizes(file)["key_value_heads"]) == (9000, 0)
    edit(file, sliding_window=0)
    with pytest.raises(InputError, match="sliding_window must lie in"):
        read_sizes(file)
    edit(file, sliding_window=None, attention_bias=True)
    with pytest.raises(InputError, match="attention_bias True is not supported for mistral"):
        read_sizes(file)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm_bias": True}, "norm_bias True is not supported"),
        ({"hidden_activation": "silu"}, "hidden_activation silu is not supported"),
        ({"layer_types": ["sliding_attention"] * 5}, "layer_types sliding_attention, .* is not supported"),
        ({"layer_types": ["full_attention"] * 2}, "layer_types full_attention, full_attention is not supported"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rotary positions of type yarn"),
        ({"local_attention": 1}, r"local_attention must lie in \[2"),
    ],
)
def test_a_modernbert_of_either_version_is_read_and_another_one_is_named(tmp_path, fields, message):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 5, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": 16}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "modernbert", **sizes, "layer_norm_eps": 1e-5}))
    names = ("rotary_base", "local_rotary_base", "local_window", "global_every")
    assert [read_sizes(file)[name] for name in names] == [160_000, 10_000, 64, 3]
    edit(file, global_rope_theta=5e4, local_rope_theta=2e3, local_attention=10, global_attn_every_n_layers=2)
    assert [read_sizes(file)[name] for name in names] == [50_000, 2_000, 5, 2]
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
    bases = {"full_attention": {"rope_theta": 7e4}, "sliding_attention": {"rope_theta": 3e3, "rope_type": "default"}}
    edit(file, layer_types=kinds, rope_parameters=bases)
    assert [read_sizes(file)[name] for name in names] == [70_000, 3_000, 5, 4]
    edit(file, **fields)
    with pytest.raises(InputError, match=message):
        read_sizes(file)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_bidirectional_attention": None}, "use_bidirectional_attention must be true"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0 is not supported"),
        ({"hidden_activation": "gelu"}, "hidden_activation gelu is not supported"),
        ({"attention_bias": True}, "attention_bias True is not supported"),
        ({"layer_types": ["full_attention"] + ["sliding_attention"] * 4}, "layer_types full_attention, .*n-th on"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "rotary positions of type linear"),
        ({"sliding_window": 1}, r"sliding_window must lie in \[2"),
    ],
)
def test_an_embedding_gemma_of_either_version_is_read_and_another_one_is_named(tmp_path, fields, message):
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 5, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": 16, "use_bidirectional_attention": True}
    file = tmp_path / "config.json"
    # Fields of the published folder without effect are in it too.
    file.write_text(json.dumps({"model_type": "gemma3_text", **sizes, "_sliding_window_pattern": 6}))
    names = ("rotary_base", "local_rotary_base", "local_window", "global_every", "query_scalar", "head_width")
    assert [read_sizes(file)[name] for name in names] == [1_000_000, 10_000, 2048, 6, 256, 256]
    assert read_sizes(file)["key_value_heads"] == 4
    edit(file, rope_theta=5e4, rope_local_base_freq=2e3, sliding_window=10, sliding_window_pattern=2)
    edit(file, query_pre_attn_scalar=7, head_dim=6, num_key_value_heads=2, rope_scaling=None)
    assert [read_sizes(file)[name] for name in names] == [50_000, 2_000, 5, 2, 7, 6]
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "sliding_attention"]
    bases = {"full_attention": {"rope_theta": 7e4}, "sliding_attention": {"rope_theta": 3e3, "rope_type": "default"}}
    edit(file, layer_types=kinds, rope_parameters=bases)
    assert [read_sizes(file)[name] for name in names] == [70_000, 3_000, 5, 3, 7, 6]
    edit(file, layer_types=["sliding_attention"] * 5)
    limits = {"max_query_tokens": 8, "max_document_tokens": 8}
    assert not any(EncoderConfig(**limits, **read_sizes(file)).global_layers)
    edit(file, **fields)
    with pytest.raises(InputError, match=message):
        read_sizes(file)


NOMIC = {"family": "nomic_bert", "width": 36, "rotary_base": 50.0}


def write_nomic(folder):
    """A folder as transformers writes it."""
    write_tokenizer(folder / "tokenizer")
    config = small_config(**NOMIC)
    model = Encoder(random_model(config), config=config, tokenizer_folder=folder / "tokenizer")
    pretrained.export(model, folder / "model")
    return folder / "model"


def write_published_nomic(folder):
    """The same folder in the form of nomic-embed-text-v1.5: other names, one matrix of query, key and value."""
    new = write_nomic(folder)
    old = folder / "published"
    shutil.copytree(new, old)
    tensors = {}
    for name, tensor in load_file(new / "model.safetensors").items():
        name = name.replace("layers.", "encoder.layers.").replace("embeddings.LayerNorm", "emb_ln")
        for ours, theirs in (
            ("self_attn.o_proj", "attn.out_proj"),
            ("up_proj", "fc11"),
            ("gate_proj", "fc12"),
            ("down_proj", "fc2"),
            ("post_attention_layernorm", "norm1"),
            ("post_mlp_layernorm", "norm2"),
        ):
            name = name.replace(ours, theirs)
        tensors[name] = tensor
    for i in range(2):
        parts = [tensors.pop(f"encoder.layers.{i}.self_attn.{part}_proj.weight") for part in "qkv"]
        tensors[f"encoder.layers.{i}.attn.Wqkv.weight"] = np.concatenate(parts)
    save_file(tensors, old / "model.safetensors")
    described = {"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "vocab_size": 86, "n_embd": 36}
    described |= {"n_layer": 2, "n_head": 3, "n_inner": 52, "n_positions": 77, "layer_norm_epsilon": 1e-12}
    described |= {"activation_function": "swiglu", "causal": False, "prenorm": False, "parallel_block": False}
    described |= {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "use_rms_norm": False}
    described |= {"rotary_emb_base": 50, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False}
    described |= {"rotary_emb_scale_base": None, "rotary_scaling_factor": None, "max_trained_positions": 2048}
    described |= {"pad_vocab_size_multiple": 64, "fused_bias_fc": True, "attn_pdrop": 0.0, "type_vocab_size": 2}
    code = "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert."
    described["auto_map"] = {"AutoConfig": f"{code}NomicBertConfig", "AutoModel": f"{code}NomicBertModel"}
    (old / "config.json").write_text(json.dumps(described))
    return old


def test_a_nomic_bert_is_read_in_the_form_of_transformers_and_in_the_published_one(tmp_path):
    published = write_published_nomic(tmp_path)
    one, other = pretrained.load_encoder(tmp_path / "model"), pretrained.load_encoder(published)
    assert same_parameters(one, other)
    assert one.config.encoder == dataclasses.replace(other.config.encoder, weights=one.config.encoder.weights)
    assert one.config.encoder.rotary_base == 50.0
    # The folder of nomic-embed-text-v1.5 has both names of the fields, and two limits.
    edit(published / "config.json", hidden_size=36, max_position_embeddings=20, hidden_act="silu", head_dim=12)
    assert read_sizes(published / "config.json")["max_positions"] == 77
    described = json.loads((published / "config.json").read_text())
    for change, message in (
        ({"hidden_size": 40}, "n_embd 36 and hidden_size 40 contradict each other"),
        ({"head_dim": 10}, "head_dim 10 is not supported"),
        ({"activation_function": "gelu"}, "activation_function gelu is not supported"),
        ({"qkv_proj_bias": True}, "qkv_proj_bias True is not supported"),
        ({"rotary_emb_fraction": 0.5}, "rotary_emb_fraction 0.5 is not supported"),
        ({"rotary_scaling_factor": 2.0}, "rotary_scaling_factor 2.0 is not supported"),
        ({"num_experts": 8}, "num_experts 8 is not supported"),
        ({"moe_top_k": 2}, "field moe_top_k of a nomic_bert is not known"),
        ({"auto_map": {"AutoModel": "modeling.OtherModel"}}, "auto_map is not supported: it names code"),
    ):
        (published / "config.json").write_text(json.dumps(described | change))
        with pytest.raises(InputError, match=message):
            read_sizes(published / "config.json")


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "bool"])
def test_weights_of_integers_are_refused_by_name(tmp_path, kind):
    folder = write_bert(tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: array.astype(kind) for name, array in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model.safetensors: tensor .* is stored as [IUB]\w+; weights must be F32"):
        pretrained.load_encoder(folder)


def test_weights_of_eight_bit_floats_are_refused_by_name(tmp_path):
    folder = write_bert(tmp_path / "bert")
    header, offset = {}, 0
    for name, array in load_file(folder / "model.safetensors").items():
        header[name] = {"dtype": "F8_E4M3", "shape": array.shape, "data_offsets": [offset, offset + array.size]}
        offset += array.size
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))
    with pytest.raises(InputError, match=r"tensor .* is stored as F8_E4M3; weights must be F32"):
        pretrained.load_encoder(folder)


def test_other_integers_beside_the_weights_and_double_precision_are_read(tmp_path):
    folder = write_bert(tmp_path / "bert")
    expected = pretrained.load_encoder(folder)
    tensors = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    tensors["embeddings.position_ids"] = np.arange(77)
    save_file(tensors, folder / "model.safetensors")
    assert same_parameters(pretrained.load_encoder(folder), expected)


def test_vectors_have_the_length_that_the_folder_declares(tmp_path):
    folder = add_modules(write_bert(tmp_path / "bert"), truncate_dim=8)
    encoder, whole = pretrained.load_encoder(folder), pretrained.load_encoder(write_bert(tmp_path / "whole"))
    assert (encoder.dim, encoder.checked_dim(None), encoder.checked_dim(30)) == (8, 8, 30)
    np.testing.assert_allclose(encoder.encode(TEXTS), whole.encode(TEXTS, dim=8), atol=1e-6)
    np.testing.assert_allclose(encoder.encode(TEXTS, dim=30), whole.encode(TEXTS), atol=1e-6)
    assert encoder.fingerprint != whole.fingerprint


def test_modules_that_are_not_supported_are_named(tmp_path):
    folder = add_modules(write_bert(tmp_path / "bert"))
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules[:2], dense, modules[2]]))
    with pytest.raises(InputError, match=r"2_Dense.config.json: no such file"):
        pretrained.load_encoder(folder)
    other = {**dense, "type": "sentence_transformers.models.LayerNorm"}
    (folder / "modules.json").write_text(json.dumps([*modules[:2], other, modules[2]]))
    with pytest.raises(InputError, match=r"modules.json: module LayerNorm is not supported"):
        pretrained.load_encoder(folder)
    own = {**modules[0], "type": "custom_st.Transformer"}
    (folder / "modules.json").write_text(json.dumps([own, *modules[1:]]))
    with pytest.raises(InputError, match=r"modules.json: module custom_st.Transformer is not supported"):
        pretrained.load_encoder(folder)
    (folder / "modules.json").write_text(json.dumps(modules[1:]))
    with pytest.raises(InputError, match="found Pooling, Normalize"):
        pretrained.load_encoder(folder)
    (folder / "modules.json").write_text("[{")
    with pytest.raises(InputError, match="not JSON"):
        pretrained.load_encoder(folder)


def test_scores_that_are_no_cosines_can_be_trained_from_only(tmp_path):
    folder = add_modules(write_bert(tmp_path / "bert"), normalize=False, similarity_fn_name="dot")
    with pytest.raises(InputError, match="not cosines"):
        pretrained.load_encoder(folder)
    assert "tower" in pretrained.read_parameters(small_config(weights=str(folder)), mesh=ONE_DEVICE)


def test_weights_are_safetensors_only(tmp_path):
    folder = write_bert(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"must be safetensors .*found only pytorch_model.bin"):
        pretrained.load_encoder(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    with open(folder / "model.safetensors", "rb+") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="a damaged one"):
        pretrained.load_encoder(folder)


def test_a_folder_without_tokenizer_or_config_is_refused(tmp_path):
    folder = write_bert(tmp_path / "bert")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="it has no tokenizer"):
        pretrained.load_encoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"neither config.json nor modules.json"):
        pretrained.load_encoder(folder)


def test_the_hub_is_asked_for_safe_files_only(tmp_path, monkeypatch):
    folder = write_bert(tmp_path / "snapshot")
    asked = {}

    def snapshot_download(name, *, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert pretrained.load_encoder("someone/model").dim == 30
    assert asked["name"] == "someone/model"
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in asked["patterns"])


def test_an_unreachable_hub_says_so_and_names_the_folder_form(monkeypatch):
    def offline(*_, **__):
        raise errors.OfflineModeIsEnabled("offline mode")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(NamedFailure, match=r"someone/model .*hub cannot be reached.*folder with config.json"):
        pretrained.load_encoder("someone/model")
    with pytest.raises(InputError, match="is no folder"):
        pretrained.load_encoder("./models/nowhere")


@pytest.mark.parametrize("encoder", [{}, {"position_offset": 1, "pooling": "last"}, {"shared_towers": False}])
def test_an_exported_folder_loads_as_the_same_encoder(tmp_path, encoder):
    config = small_config(**encoder)
    write_tokenizer(tmp_path / "tokenizer")
    exported = Encoder(
        random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer", prompts={"query": "the "}
    )
    outcome = pretrained.export(exported, tmp_path / "folder")
    loaded = pretrained.load_encoder(tmp_path / "folder")
    assert same_parameters(loaded, exported)
    assert loaded.tokenizer.fingerprint == exported.tokenizer.fingerprint
    assert loaded.prompts == {"query": "the "}
    assert loaded.config.encoder.pooling == config.encoder.pooling
    assert loaded.config.encoder.shared_towers == config.encoder.shared_towers
    assert outcome["max_seq_length"] == {"query": 40 if config.encoder.shared_towers else 12, "document": 40}
    assert {tower: loaded.max_tokens(tower) for tower in ("query", "document")} == outcome["max_seq_length"]
    if not config.encoder.shared_towers:
        with pytest.raises(InputError, match="shared_towers is set"):
            pretrained.resolve_config(Config().replace(encoder={"weights": str(tmp_path / "folder")}))


def test_positions_that_no_hugging_face_family_would_count_are_not_exported(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    config = small_config(position_offset=2)
    odd = Encoder(random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer")
    with pytest.raises(InputError, match=r"position_offset 2 .*padding token 0"):
        pretrained.export(odd, tmp_path / "folder")


def test_two_towers_must_agree_in_tokenizer_and_size(tmp_path):
    config = small_config(shared_towers=False)
    write_tokenizer(tmp_path / "tokenizer")
    pretrained.export(
        Encoder(random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer"), tmp_path / "folder"
    )
    query = tmp_path / "folder" / "query_0_Transformer"
    (query / "tokenizer.json").write_text((query / "tokenizer.json").read_text().replace("shoe", "shod"))
    with pytest.raises(InputError, match="different tokenizers"):
        describe(tmp_path / "folder")
    edit(query / "config.json", num_attention_heads=5)
    with pytest.raises(InputError, match="differ in size"):
        describe(tmp_path / "folder")


QWEN = {"heads": 6, "key_value_heads": 2, "head_width": 8, "layer_norm_epsilon": 1e-6, "layers": 1, "pooling": "last"}


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_qwen_folder_comes_back_as_it_went_out(tmp_path, family):
    rows = write_qwen_tokenizer(tmp_path / "tokenizer")
    config = small_config(family=family, vocabulary_size=rows, **QWEN)
    prompts = {"query": "Instruct: find it\nQuery:"}
    encoder = Encoder(random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer", prompts=prompts)
    pretrained.export(encoder, tmp_path / "folder")
    again = pretrained.load_encoder(tmp_path / "folder")
    assert again.prompts == prompts
    assert again.config.encoder == dataclasses.replace(
        config.encoder, weights=str(tmp_path / "folder"), max_query_tokens=40
    )
    texts = ["red lamps", "東京", "a"]
    np.testing.assert_array_equal(again.encode(texts), encoder.encode(texts))
    described = json.loads((tmp_path / "folder" / "config.json").read_text())
    for change, message in (
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rotary positions of type yarn are not supported"),
        ({"use_sliding_window": True}, "use_sliding_window True is not supported"),
        ({"attention_bias": family == "qwen3"}, "attention_bias .* is not supported"),
        ({"num_key_value_heads": 4}, "heads must be a multiple of key_value_heads"),
        ({"hidden_act": "gelu"}, "hidden_act gelu is not supported"),
    ):
        (tmp_path / "folder" / "config.json").write_text(json.dumps(described | change))
        with pytest.raises(InputError, match=message):
            pretrained.load_encoder(tmp_path / "folder")
    # transformers 5 writes the base of the rotary positions elsewhere.
    del described["rope_theta"]
    described["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}
    (tmp_path / "folder" / "config.json").write_text(json.dumps(described))
    assert pretrained.load_encoder(tmp_path / "folder").config.encoder.rotary_base == 5e5


def test_a_tokenizer_that_transformers_would_replace_is_not_exported(tmp_path):
    write_tokenizer(tmp_path / "tokenizer")
    config = small_config(family="qwen2", **QWEN)
    encoder = Encoder(random_model(config), config=config, tokenizer_folder=tmp_path / "tokenizer")
    with pytest.raises(InputError, match="transformers reads another tokenizer out of a folder of a qwen2 encoder"):
        pretrained.export(encoder, tmp_path / "folder")
