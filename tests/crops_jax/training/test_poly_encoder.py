"""The train step and the dev recall of a Poly-encoder against plain loops, over one device and eight."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from crops_jax.config import MeshConfig
from crops_jax.devices import sharding
from crops_jax.errors import InputError
from crops_jax.input_pipeline.batch_reader import cut
from crops_jax.labels import Level
from crops_jax.models.dual_encoder import DualEncoder
from crops_jax.models.poly_encoder import QueryCodes
from crops_jax.records import RecordSource
from crops_jax.training.dev_recall import DevRecall
from crops_jax.training.frozen_documents import check_frozen
from crops_jax.training.step import device_batch, implementation_name, make_train_step
from tests.crops_jax.losses.reference import reference
from tests.crops_jax.models.test_poly_encoder import POLY, reference_contexts, reference_score, unit
from tests.crops_jax.training.test_step import MESHES, batch_of, first_moments
from tests.tiny_run import BagEncoder, state_of, tiny_records


class BagPolyEncoder(BagEncoder):
    """A Poly-encoder whose token states are token embeddings, because it compiles several times faster."""

    packed_contexts, pooled_states, _pooled = (
        DualEncoder.packed_contexts,
        DualEncoder.pooled_states,
        DualEncoder._pooled,
    )

    def __init__(self, config, *, seed):
        super().__init__(config, seed=seed)
        self.pooling, self.max_query_tokens = "mean", config.encoder.max_query_tokens
        self.query_codes = QueryCodes(config.encoder, rngs=nnx.Rngs(seed))

    def packed_states(self, texts, *, tower, micro_batches=1, dropout_key=None, flash=None):
        return self.token_embedding(jnp.maximum(texts.tokens, 0))

    def encode_rows(self, tokens, segments, *, tower, dropout_key=None, flash=None):
        return self._pooled(self.token_embedding(jnp.maximum(tokens, 0)), segments)

    def encode_contexts(self, tokens):
        return self.query_codes(self.token_embedding(jnp.maximum(tokens, 0)), tokens >= 0)

    def plain_score(self, query, document, temperature):
        """The score of two texts in float64, by the definition."""
        table, codes = np.float64(self.token_embedding.embedding[...]), np.float64(self.query_codes.codes[...])
        contexts = reference_contexts(codes, table[query], np.ones(len(query), bool))
        return reference_score(contexts, unit(table[document].mean(axis=0)), temperature)


def levels_of(batch) -> np.ndarray:
    """The level of every pair, looked up one by one."""
    levels = np.zeros((len(batch.query_tokens), len(batch.document_ids)), int)
    for row, labelled in enumerate(zip(batch.labelled_ids, batch.labelled_levels)):
        for words, level in zip(*labelled):
            if level:
                levels[row, (batch.document_ids == words).all(axis=1)] = level
    return levels


def documents_of(batch) -> list[np.ndarray]:
    packed, queries = batch.texts[0], len(batch.query_tokens)
    found = []
    for place in packed.places[0, queries:]:
        row, segment = divmod(int(place), packed.tokens.shape[2] // 4)
        found.append(packed.tokens[0, row][packed.segments[0, row] == segment] if place >= 0 else np.zeros(0, int))
    return found


def test_the_loss_is_that_of_the_definition_on_one_device_and_on_eight():
    model, results = BagPolyEncoder(POLY, seed=1), []
    for mesh_config in (MESHES[0], MESHES[2]):
        mesh = sharding.make_mesh(mesh_config)
        step = make_train_step(model, POLY, steps=10, mesh=mesh)
        batch = batch_of(groups=sharding.num_groups(mesh))
        state, metrics = step(state_of(model, POLY, steps=10, mesh=mesh), device_batch(batch, mesh))
        results.append((float(metrics.loss), float(metrics.grad_norm), first_moments(state)))
    batch = batch_of()
    documents = documents_of(batch)
    real = np.array([len(document) > 0 for document in documents])
    real[-1] = False  # a second copy of the first document
    scores = np.zeros((len(batch.query_tokens), len(documents)))
    for row, query in enumerate(batch.query_tokens):
        for column in np.flatnonzero(real):
            scores[row, column] = model.plain_score(query[query >= 0], documents[column], 0.1)
    loss, norm, moments = results[0]
    assert loss == pytest.approx(reference("h_infonce", scores, levels_of(batch), 0.1, mask=real), rel=1e-5)
    assert any(np.abs(moment).max() > 0 for name, moment in moments.items() if "codes" in name)
    largest = max(np.abs(moment).max() for moment in moments.values())
    for other_loss, other_norm, other in results[1:]:
        assert (other_loss, other_norm) == (pytest.approx(loss, rel=1e-6), pytest.approx(norm, rel=1e-5))
        assert max(np.abs(moments[name] - other[name]).max() for name in moments) <= 1e-5 * largest


def test_dev_recall_is_that_of_the_score_of_the_poly_encoder(tmp_path):
    source = RecordSource(tiny_records(tmp_path / "records", dev=14), split="dev")
    model = BagPolyEncoder(POLY, seed=0)
    texts = {tuple(words): tokens for r in source for words, tokens in zip(r.document_ids.tolist(), r.document_tokens)}
    ids = sorted(texts)
    recalls = []
    for record in source:
        labelled = zip(map(tuple, record.labelled_ids.tolist()), record.labelled_levels)
        positives = {words for words, level in labelled if level >= Level.POSITIVE and words in texts}
        query = cut(record.query_tokens, 6, closing_token=source.closing_token)
        cuts = [cut(texts[words], 12, closing_token=source.closing_token) for words in ids]
        scores = np.array([model.plain_score(query, text, 0.1) for text in cuts])
        first = {ids[place] for place in np.argsort(-scores, kind="stable")[:10]}
        if positives:
            recalls.append(len(first & positives) / len(positives))
    dev = DevRecall(source, model, POLY, mesh=sharding.make_mesh(MeshConfig(data=8)))
    assert dev(nnx.to_pure_dict(nnx.state(model, nnx.Param))) == pytest.approx(np.mean(recalls))


def test_the_loss_is_dense_for_every_size_of_a_batch():
    large = POLY.replace(data={"queries_per_batch": 4096, "documents_per_query": 4})
    assert implementation_name(large) == "dense"
    assert implementation_name(large.replace(encoder={"query_codes": 0})) == "streaming"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"loss": {"implementation": "streaming"}}, "loss.implementation must be auto or dense, found streaming"),
        ({"loss": {"implementation": "pallas"}}, "loss.implementation must be auto or dense, found pallas"),
        ({"loss": {"matryoshka_dims": (8,)}}, "loss.matryoshka_dims must be empty"),
        ({"encoder": {"query_codes": -1}}, "query_codes must not be negative, found -1"),
        ({"encoder": {"family": "hashed"}}, "hashed towers have no token states for query_codes"),
    ],
)
def test_what_cannot_have_codes_is_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        POLY.replace(**changes)


def test_frozen_documents_are_refused():
    with pytest.raises(InputError, match=r"--encoder\.query-codes 0"):
        check_frozen(POLY.replace(encoder={"shared_towers": False}, loss={"name": "lambda_mrr"}))
