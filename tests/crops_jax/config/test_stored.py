import dataclasses
import json

from crops_jax.config.stored import binding_sections, config_hash, differing_fields
from tests.tiny_pairs import CONFIG as PAIRS
from tests.tiny_run import CONFIG


def as_stored(config):
    return json.loads(json.dumps(dataclasses.asdict(config)))


def test_differing_fields_are_named_and_free_ones_are_not():
    assert differing_fields(as_stored(CONFIG), CONFIG) == []
    free = CONFIG.replace(
        mesh={"data": 2, "model": 4},
        data={"workers": 2},
        training={
            "log_every_steps": 1,
            "evaluate_every_steps": 0,
            "checkpoint_every_steps": 9,
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


def test_a_run_of_an_earlier_version_had_the_defaults_of_the_fields_that_it_lacks():
    for config in (CONFIG, PAIRS):
        stored = as_stored(config)
        for name in ("layer_decay", "ema_decay"):
            del stored["optimizer"][name]
        del stored["training"]["skip_nonfinite_steps"]
        assert differing_fields(stored, config) == []
        changed = config.replace(optimizer={"ema_decay": 0.9})
        assert differing_fields(stored, changed) == ["optimizer.ema_decay: 0.0 there, 0.9 here"]
    del stored["pairs"]
    assert differing_fields(stored, PAIRS) == [
        "pairs.max_tokens: 128 there, 8 here",
        "pairs.pairs_per_batch: 32 there, 16 here",
    ]


def test_a_field_that_this_version_lacks_is_named():
    stored = as_stored(CONFIG)
    stored["loss"]["name_of_later"] = "x"
    assert differing_fields(stored, CONFIG) == ["loss.name_of_later: x there, (absent) here"]
