"""Programs that write one output in one process, started in several."""

import pytest

from crops_jax.config import Config
from crops_jax.errors import InputError
from launch import compare, evaluate, export, mine_negatives, pipeline, search, train_discriminator

_CALLS = {
    "evaluate": lambda out: evaluate.evaluate(evaluate.EvaluateArguments(run="run", logs="logs", output=out)),
    "compare": lambda out: compare.compare(compare.CompareArguments(output=out)),
    "pipeline": lambda out: pipeline.run_pipeline(
        pipeline.PipelineArguments(config=Config(), logs="logs", from_time="2024-05-01", output=out)
    ),
    "search": lambda out: search.search(search.SearchArguments(run="run", logs="logs")),
    "train_discriminator": lambda out: train_discriminator.train_discriminator(
        train_discriminator.TrainDiscriminatorArguments(logs="logs", output=out)
    ),
    "export": lambda out: export.export(export.ExportArguments(run="run", output=out)),
    "mine_negatives": lambda out: mine_negatives.mine_negatives(
        mine_negatives.MineNegativesArguments(
            labels="labels", query_embeddings="queries", document_embeddings="documents", level=1, output=out
        )
    ),
}


@pytest.mark.parametrize("name", _CALLS)
def test_it_is_refused_on_one_machine_of_a_tpu_slice(name, tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-0,host-1,host-2,host-3")
    with pytest.raises(InputError, match=f"launch.{name} works in one process.* a slice of 4 machines.*JAX_PLATFORMS"):
        _CALLS[name](str(tmp_path / "output"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", _CALLS)
def test_it_is_refused_before_anything_is_read(name, tmp_path, monkeypatch):
    for variable, value in {"COORDINATOR_ADDRESS": "127.0.0.1:9", "NUM_PROCESSES": "2", "PROCESS_ID": "1"}.items():
        monkeypatch.setenv(f"JAX_{variable}", value)
    with pytest.raises(InputError, match=f"launch.{name} works in one process"):
        _CALLS[name](str(tmp_path / "output"))
    assert not list(tmp_path.iterdir())
