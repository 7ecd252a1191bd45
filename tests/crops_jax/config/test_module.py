"""A configuration as a module: what is read back is what was written."""

import json

import pytest

from crops_jax.config import Config
from crops_jax.config.module import as_module, changes_of_defaults
from crops_jax.program import load_config


@pytest.mark.parametrize("name", ["tiny_cpu", "tiny_hashed", "qwen2_5_0_5b", "bestbuy"])
def test_the_module_has_the_same_configuration(tmp_path, name):
    config = load_config(name).replace(training={"seed": 7}, loss={"matryoshka_dims": (8, 16)})
    text = as_module(config, heading="A configuration.")
    (tmp_path / "config.py").write_text(text)
    assert load_config(str(tmp_path / "config.py")) == config
    assert text.startswith('"""A configuration."""')
    assert as_module(config, heading="A configuration.") == text


def test_the_changes_of_the_defaults_are_the_fields_that_differ():
    config = Config().replace(training={"seed": 7}, loss={"matryoshka_dims": (8, 16)})
    changed = json.loads(changes_of_defaults(config))
    expected = {"training": {"seed": 7}, "loss": {"matryoshka_dims": [8, 16]}}
    assert {section: fields for section, fields in changed.items() if fields} == expected
    assert changes_of_defaults(config.replace(training={"seed": 8})) != changes_of_defaults(config)
