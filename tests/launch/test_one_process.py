"""Programs that write one output in one process, started in several."""

import pytest

from crops_jax.errors import InputError
from launch import evaluate, export, mine_negatives

_CALLS = {
    "evaluate": lambda out: evaluate.evaluate(evaluate.EvaluateArguments(run="run", logs="logs", output=out)),
    "export": lambda out: export.export(export.ExportArguments(run="run", output=out)),
    "mine_negatives": lambda out: mine_negatives.mine_negatives(
        mine_negatives.MineNegativesArguments(
            labels="labels", query_embeddings="queries", document_embeddings="documents", level=1, output=out
        )
    ),
}


@pytest.mark.parametrize("name", _CALLS)
def test_it_is_refused_before_anything_is_read(name, tmp_path, monkeypatch):
    for variable, value in {"COORDINATOR_ADDRESS": "127.0.0.1:9", "NUM_PROCESSES": "2", "PROCESS_ID": "1"}.items():
        monkeypatch.setenv(f"JAX_{variable}", value)
    with pytest.raises(InputError, match=f"launch.{name} works in one process"):
        _CALLS[name](str(tmp_path / "output"))
    assert not list(tmp_path.iterdir())
