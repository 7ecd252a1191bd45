"""Training with distillation: what a run logs, what it refuses, and that it resumes as if nothing had happened."""

import pytest

from crops_jax.errors import InputError, Interrupted
from crops_jax.runs.folder import check_records
from crops_jax.runs.log import read_metrics
from crops_jax.training import dual_encoder
from crops_jax.training.frozen_documents import check_frozen
from tests.crops_jax.training.test_dual_encoder import assert_same_run, stop_before
from tests.tiny_run import CONFIG, tiny_records, use_bag_encoder

pytestmark = pytest.mark.usefixtures("fast_compilation")

DISTILLED = CONFIG.replace(
    loss={"distillation": "margin_mse", "distillation_weight": 0.1},
    training={"steps": 8, "evaluate_every_steps": 4},
)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records", scored=True)


@pytest.mark.slow
def test_a_run_logs_the_distillation_and_resumes(records, tmp_path, monkeypatch):
    use_bag_encoder(monkeypatch)
    run, interrupted = tmp_path / "run", tmp_path / "interrupted"
    dual_encoder.train(DISTILLED, records_path=records, run=run)
    with monkeypatch.context() as patch:
        stop_before(6, patch, stopping)
        with pytest.raises(Interrupted):
            dual_encoder.train(DISTILLED, records_path=records, run=interrupted)
    dual_encoder.train(DISTILLED, records_path=records, run=interrupted)
    assert_same_run(interrupted, run)
    for line in read_metrics(run):
        assert line["loss_name"] == "h_infonce"
        assert 0 < 0.1 * line["distillation_loss"] < line["loss"]
    dual_encoder.train(CONFIG.replace(training={"steps": 2}), records_path=records, run=tmp_path / "plain")
    assert "distillation_loss" not in read_metrics(tmp_path / "plain")[-1]


def stopping():
    raise Interrupted("stopped by the test")


def test_records_without_scores_are_refused_with_the_remedy(records, tmp_path):
    check_records(records, DISTILLED)
    plain = tiny_records(tmp_path / "plain")
    check_records(plain, CONFIG)
    with pytest.raises(
        InputError, match=r"have no scores, .*write the records with data\.write_records --discriminator"
    ):
        check_records(plain, DISTILLED)


def test_frozen_documents_have_nothing_to_distil():
    frozen = CONFIG.replace(encoder={"shared_towers": False}, loss={"name": "lambda_mrr"})
    check_frozen(frozen)
    with pytest.raises(InputError, match=r"leave --loss\.distillation out"):
        check_frozen(frozen.replace(loss={"distillation": "kl"}))
