import dataclasses
import json

import pytest

from crops_jax.config.stored import (
    binding_sections,
    config_hash,
    differing_fields,
    read_config,
    read_sections,
    write_config,
)
from crops_jax.errors import InputError
from crops_jax.storage import names
from tests.tiny_pairs import CONFIG as PAIRS
from tests.tiny_run import CONFIG


def as_stored(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


def test_differing_fields_are_named_and_free_ones_are_not():
    assert differing_fields(as_stored(CONFIG), CONFIG) == []
    free = CONFIG.replace(
        mesh={"data": 2, "model": 4},
        data={"workers": 2, "read_threads": 8, "cache": "off"},
        training={
            "log_every_steps": 1,
            "evaluate_every_steps": 0,
            "checkpoint_every_steps": 9,
            "checkpoint_every_seconds": 5.0,
            "hang_seconds": 7.0,
            "keep_last": 5,
            "profile_steps": (3, 2),
            "skip_nonfinite_steps": 7,
        },
    )
    assert differing_fields(as_stored(CONFIG), free) == []
    assert config_hash(binding_sections(free)) == config_hash(binding_sections(CONFIG))
    other = CONFIG.replace(optimizer={"learning_rate": 1e-5}, training={"seed": 9})
    assert differing_fields(as_stored(CONFIG), other) == [
        "optimizer.learning_rate: 0.003 there, 1e-05 here",
        "training.seed: 3 there, 9 here",
    ]
    assert config_hash(binding_sections(other)) != config_hash(binding_sections(CONFIG))


@pytest.mark.parametrize("config", [CONFIG, PAIRS])
def test_weights_in_a_bucket_are_the_same_on_every_machine(config, tmp_path):
    """A run that goes on elsewhere has another local copy of them, and the run keeps their path in the bucket."""
    url = "s3://bucket/weights"
    try:
        for machine in ("one", "two"):
            names.remember(f"/{machine}/weights", url)
        one, two = (config.replace(encoder={"weights": f"/{machine}/weights"}) for machine in ("one", "two"))
        write_config(tmp_path / "config.json", one)
        stored = read_sections(tmp_path / "config.json", remedy="train again")
        assert stored["encoder"]["weights"] == url
        assert differing_fields(stored, two) == []
        assert config_hash(binding_sections(one)) == config_hash(binding_sections(two))
        other = config.replace(encoder={"weights": "/one/others"})
        assert differing_fields(stored, other) == [f"encoder.weights: {url} there, /one/others here"]
    finally:
        names.forget()


def test_a_run_of_an_earlier_version_has_the_defaults_of_the_fields_that_it_lacks():
    for config in (CONFIG, PAIRS):
        stored = as_stored(config)
        for name in ("layer_decay", "ema_decay"):
            del stored["optimizer"][name]
        assert differing_fields(stored, config) == []
        # What a checkpoint of that version keeps lacks the fields too.
        assert differing_fields(binding_sections(config) | {"optimizer": stored["optimizer"]}, config) == []
        assert differing_fields(stored, config.replace(optimizer={"ema_decay": 0.9})) == [
            "optimizer.ema_decay: 0.0 there, 0.9 here"
        ]
    del stored["pairs"]
    assert "pairs.max_tokens: (absent) there, 8 here" in differing_fields(stored, PAIRS)


def test_a_field_that_this_version_lacks_is_named():
    stored = as_stored(CONFIG)
    stored["loss"]["name_of_later"] = "x"
    assert differing_fields(stored, CONFIG) == ["loss.name_of_later: x there, (absent) here"]


def test_a_configuration_is_read_back_whole_or_refused(tmp_path):
    file, stored = tmp_path / "config.json", as_stored(CONFIG)
    with pytest.raises(InputError, match=r"config.json: no such file; the run is incomplete"):
        read_config(file)
    write_config(file, CONFIG)
    assert read_config(file) == CONFIG
    assert read_sections(file, remedy="-") == stored
    del stored["optimizer"]["ema_decay"]
    file.write_text(json.dumps(stored))
    assert read_config(file) == CONFIG
    del stored["optimizer"]
    file.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"not a configuration of this version \(section optimizer is missing\)"):
        read_config(file)
    file.write_text(json.dumps(as_stored(CONFIG) | {"optimizer": {"of_later": 1}}))
    with pytest.raises(InputError, match=r"not a configuration of this version \(.*of_later"):
        read_config(file)


def test_what_is_no_configuration_is_refused_with_the_remedy(tmp_path):
    file = tmp_path / "config.json"
    for content, found in (
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ('{"mesh": 3}', "mesh must be an object"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=rf"config.json: {found}.*; choose another --output"):
            read_sections(file, remedy="choose another --output")
