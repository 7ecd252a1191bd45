"""A run with a moving average, steps that are not finite and a profiler trace: whatever ends it, it goes on exactly."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crops_jax.errors import NamedFailure
from crops_jax.input_pipeline import records_of_step
from crops_jax.records import RecordSource
from crops_jax.runs import checkpoints, profiling
from crops_jax.training import dual_encoder
from tests.crops_jax.training.test_dual_encoder import assert_same_run
from tests.tiny_run import CONFIG, BagEncoder, tiny_records, use_bag_encoder

pytestmark = pytest.mark.usefixtures("fast_compilation")

SPOILT_STEPS = (2, 4, 6)


def config(*, allowed, profile_steps):
    # With so many micro-batches, which BagEncoder has no use for, every batch has one shape: one program to compile.
    return CONFIG.replace(
        optimizer={"ema_decay": 0.9, "layer_decay": 0.9},
        training={
            "steps": 7,
            "micro_batches": 32,
            "log_every_steps": 1,
            "evaluate_every_steps": 5,
            "checkpoint_every_steps": 3,
            "skip_nonfinite_steps": allowed,
            "profile_steps": profile_steps,
        },
    )


@pytest.fixture(scope="module")
def spoilt():
    """Makes the embeddings of a BagEncoder NaN in some steps, which it knows by the key of their dropout."""
    original = BagEncoder.encode_packed
    keys = [jax.random.fold_in(jax.random.key(CONFIG.training.seed), step - 1) for step in SPOILT_STEPS]
    spoilt_keys = np.stack([jax.random.key_data(jax.random.split(key, 1)[0]) for key in keys])

    def encode_packed(self, texts, *, dropout_key=None, **others):
        vectors = original(self, texts, dropout_key=dropout_key, **others)
        is_spoilt = (jax.random.key_data(dropout_key)[None] == spoilt_keys).all(axis=1).any()
        return jnp.where(is_spoilt, jnp.nan, vectors)

    with pytest.MonkeyPatch.context() as patch:
        use_bag_encoder(patch)
        patch.setattr(BagEncoder, "encode_packed", encode_packed)
        yield


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records")


@pytest.fixture(scope="module")
def whole(spoilt, fast_compilation, records, tmp_path_factory):
    """An uninterrupted run, and the parameters that its last evaluation was given."""
    run, evaluated = tmp_path_factory.mktemp("whole"), []
    original = dual_encoder.DevRecall.__call__

    def recall(self, parameters):
        evaluated.append(jax.device_get(parameters))
        return original(self, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dual_encoder.DevRecall, "__call__", recall)
        dual_encoder.train(config(allowed=3, profile_steps=(3, 2)), records_path=records, run=run)
    return run, evaluated[-1]


def lines_of(run):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    texts = (run / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line for line in (json.loads(text, parse_constant=refuse) for text in texts)}


def traces(run):
    return sorted((run / profiling.FOLDER).glob("plugins/profile/*/*.xplane.pb"))


def test_steps_that_are_not_finite_are_skipped_and_counted(whole):
    lines = lines_of(whole[0])
    assert [lines[step]["skipped_steps"] for step in range(1, 8)] == [0, 1, 1, 2, 2, 3, 3]
    for step, line in lines.items():
        assert (line["loss"] is None) == (line["grad_norm"] is None) == (step in SPOILT_STEPS)
        assert any(name.startswith("recall_in_batch_level") for name in line) == (step not in SPOILT_STEPS)
        assert line["tokens"] > 0
    # The rate of a skipped step is that of the next one.
    assert lines[3]["learning_rate"] > lines[4]["learning_rate"] == lines[5]["learning_rate"]


def test_the_average_is_evaluated_and_given_away(whole, tmp_path):
    run, evaluated = whole
    given = checkpoints.restore_parameters(run, which="last")
    for one, other in zip(jax.tree.leaves(given), jax.tree.leaves(evaluated), strict=True):
        np.testing.assert_array_equal(one, other)
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    metadata = tmp_path / "checkpoints" / "7" / "progress" / "metadata"
    stored = json.loads(metadata.read_text())
    del stored["checksums"]["average"]
    metadata.write_text(json.dumps(stored))
    newest = checkpoints.restore_parameters(tmp_path, which="last")
    assert not np.array_equal(newest["token_embedding"]["embedding"], given["token_embedding"]["embedding"])


def test_the_steps_that_were_asked_for_are_traced(whole):
    [trace] = traces(whole[0])
    content = trace.read_bytes()
    for name in (profiling.STEP_ANNOTATION, "input_wait", "compute"):
        assert name.encode() in content


def test_one_step_more_than_may_be_skipped_is_a_named_failure_and_the_run_can_go_on(whole, records, tmp_path):
    with pytest.raises(NamedFailure, match="step 6: loss is nan") as failure:
        dual_encoder.train(config(allowed=2, profile_steps=(5, 100)), records_path=records, run=tmp_path)
    source = RecordSource(records)
    file, record = source.locate(records_of_step(source, CONFIG, 5)[0])
    said = str(failure.value)
    for part in (
        f"its batch holds 8 records of {records}: {file.name} record {record}, ",
        "2 such steps were skipped before it",
        f"the last good checkpoint is {tmp_path}/checkpoints/5",
        "a lower --optimizer.learning-rate may help, in a new run, or a larger --training.skip-nonfinite-steps",
    ):
        assert part in said, said
    assert len(traces(tmp_path)) == 1
    dual_encoder.train(config(allowed=3, profile_steps=(0, 0)), records_path=records, run=tmp_path)
    assert_same_run(tmp_path, whole[0])
