import numpy as np
import pytest
from flax import nnx

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.input_pipeline.batch_reader import cut
from crops_jax.labels import Level
from crops_jax.records import RecordSource
from crops_jax.training.dev_recall import DevRecall
from tests.tiny_run import CONFIG, BagEncoder, tiny_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("dev") / "records", dev=14)


@pytest.fixture(scope="module")
def source(folder):
    return RecordSource(folder, split="dev")


def texts_of(records):
    return {tuple(words): tokens for r in records for words, tokens in zip(r.document_ids.tolist(), r.document_tokens)}


@pytest.mark.parametrize(("further", "queries"), [(0, 0), (5, 4096), (10**6, 0), (5, 4)])
def test_recall_equals_a_plain_ranking_of_all_dev_documents(folder, source, further, queries):
    model = BagEncoder(CONFIG, seed=0)
    parameters = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    config = CONFIG.replace(training={"dev_documents": further, "dev_queries": queries})
    training = RecordSource(folder)
    assert len(source) == 14
    evaluated = [source[number] for number in (0, 3, 7, 10)] if queries == 4 else list(source)
    texts = texts_of(evaluated)
    others = {words: tokens for words, tokens in texts_of(training).items() if words not in texts}
    texts |= dict(list(others.items())[:further])
    assert len(others) > 5
    ids = sorted(texts)

    def embed(texts, limit):
        """One text a row."""
        rows = np.full((len(texts), limit), -1, np.int32)
        for row, text in zip(rows, texts):
            kept = cut(text, limit, closing_token=source.closing_token)
            row[: len(kept)] = kept
        return np.asarray(model.encode_rows(rows, np.minimum(rows, 0), tower="query"))[:, 0]

    documents = embed([texts[words] for words in ids], 12)
    recalls = []
    for record in evaluated:
        positives = {
            tuple(words)
            for words, level in zip(record.labelled_ids.tolist(), record.labelled_levels)
            if level >= Level.POSITIVE and tuple(words) in texts
        }
        scores = documents @ embed([record.query_tokens], 6)[0]
        first = {ids[place] for place in np.argsort(-scores, kind="stable")[:10]}
        if positives:
            recalls.append(len(first & positives) / len(positives))
    for mesh_config in (MeshConfig(data=1), MeshConfig(data=8)):
        dev = DevRecall(
            source, model, config, mesh=sharding.make_mesh(mesh_config), training_source=training if further else None
        )
        assert len(dev) == len(recalls)
        assert dev(parameters) == pytest.approx(np.mean(recalls))
