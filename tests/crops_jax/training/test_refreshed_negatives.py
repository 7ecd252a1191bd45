"""Negatives that the trainer mines with its own weights: what is drawn and enters a batch, also after a crash."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from crops_jax.config import NegativesConfig
from crops_jax.devices import sharding
from crops_jax.embeddings.mesh_encoder import MeshEncoder
from crops_jax.errors import InputError, Interrupted
from crops_jax.input_pipeline import batches
from crops_jax.input_pipeline.global_batches import queries_of_steps
from crops_jax.labels import Level
from crops_jax.records import ALL_DOCUMENTS, RecordSource
from crops_jax.runs import checkpoints
from crops_jax.runs.folder import open_run
from crops_jax.runs.log import TIMING_FIELDS, Stopwatch, read_goodput, read_metrics
from crops_jax.training import dual_encoder
from crops_jax.training.frozen_documents import check_frozen
from crops_jax.training.refreshed_negatives import RefreshedNegatives
from crops_jax.training.state import initial_state
from tests.tiny_run import CONFIG, BagEncoder, tiny_records, use_bag_encoder

pytestmark = pytest.mark.usefixtures("fast_compilation")

REFRESHED = CONFIG.replace(
    data={"documents_per_query": 3, "positives_per_query": 1},
    negatives={"refresh_every_steps": 5, "warmup_steps": 4, "top": 6},
    training={"steps": 16, "log_every_steps": 1},
)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    use_bag_encoder(monkeypatch)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return tiny_records(tmp_path_factory.mktemp("records") / "records", all_documents=True)


class Refreshed:
    """A refresh after some steps with the initial weights, beside the cosines that NumPy computes from them."""

    def __init__(self, records, step=4, **negatives):
        self.config = REFRESHED.replace(negatives=negatives)
        self.source, self.documents = RecordSource(records), RecordSource(records, split=ALL_DOCUMENTS)
        mesh = sharding.make_mesh(self.config.mesh)
        self.model = dual_encoder.abstract_dual_encoder(self.config)
        parameters = dual_encoder.initial_parameters(self.config, seed=1, mesh=mesh)
        self.before = initial_state(parameters, self.config, steps=16, mesh=mesh)
        self.before = self.before._replace(step=np.int32(step))
        refresh = RefreshedNegatives(self.source, self.documents, self.model, self.config, steps=16, mesh=mesh)
        self.state, self.outcome = refresh(self.before, Stopwatch())
        self.table = np.asarray(self.state.negatives)
        last = min(step + self.config.negatives.refresh_every_steps, 16)
        self.queries = queries_of_steps(self.source, self.config, first_step=step, last_step=last)
        model, limits = BagEncoder(self.config, seed=1), self.config.encoder
        ids = [self.documents[number].document_ids[0].tolist() for number in range(len(self.documents))]
        self.number = {tuple(words): number for number, words in enumerate(ids)}

        def vector(tokens, limit, tower):
            text = np.array(tokens[:limit])[None]
            return np.asarray(model.encode_rows(text, np.zeros_like(text), tower=tower))[0, 0]

        self.vectors = np.stack(
            [vector(d.document_tokens[0], limits.max_document_tokens, "document") for d in self.documents]
        )
        self.query_vector = lambda record: vector(record.query_tokens, limits.max_query_tokens, "query")

    def ranking(self, record):
        """The numbers of all documents by their cosines, the nearest first, and the cosines."""
        scores = self.vectors @ self.query_vector(record)
        order = np.argsort(-scores, kind="stable")
        return order, scores

    def positives(self, record):
        words = record.labelled_ids[record.labelled_levels >= Level.POSITIVE].tolist()
        return {self.number[tuple(pair)] for pair in words}

    def batches(self, first, last):
        """The batches of some steps with the drawn negatives."""
        refresh = RefreshedNegatives(
            self.source, self.documents, self.model, self.config, steps=16, mesh=sharding.make_mesh(self.config.mesh)
        )
        drawn = refresh.drawn(first, self.state)
        return list(
            batches(
                self.source,
                self.config,
                start_step=first,
                num_steps=16,
                end_step=last,
                documents=self.documents,
                drawn=drawn,
            )
        )

    def documents_of(self, batch):
        """For each query the numbers of the documents of its columns; None for an empty one, -1 for no document."""
        ids = batch.document_ids.reshape(-1, self.config.data.documents_per_query, 2).tolist()
        return [[self.number.get(tuple(pair), -1) if any(pair) else None for pair in row] for row in ids]


def test_exactly_the_nearest_documents_that_are_no_positives_are_drawn(records):
    # The first three documents hold at most one negative more than are drawn, so that often all of them are.
    found = Refreshed(records, top=3)
    complete = 0
    for (_, number), drawn in zip(found.queries, found.table, strict=True):
        record = found.source[int(number)]
        order, _ = found.ranking(record)
        free = [document for document in order[:3].tolist() if document not in found.positives(record)]
        kept = [document for document in drawn.tolist() if document >= 0]
        assert len(kept) == len(set(kept)) == min(2, len(free))
        assert set(kept) <= set(free)
        complete += len(free) <= 2
    assert complete > 10
    assert found.outcome["documents"] == len(found.documents)
    assert found.outcome["negatives"] == (found.table >= 0).sum()
    assert found.outcome["negatives_missing"] == (found.table < 0).sum()
    assert found.outcome["queries"] == len({int(number) for _, number in found.queries})


def test_the_draws_of_a_query_change_with_its_place_in_the_run(records):
    found = Refreshed(records, refresh_every_steps=10, top=30)
    draws = {}
    for (_, number), drawn in zip(found.queries, found.table, strict=False):
        draws.setdefault(int(number), set()).add(tuple(drawn.tolist()))
    assert sum(len(different) > 1 for different in draws.values()) > len(draws) / 2


def nearest_to_the_positive(found, count):
    """The documents whose cosine is the nearest to that of the positive in the batch, for each query."""
    expected = []
    batch_documents = [row for step in range(4, 9) for row in found.documents_of(found.batches(step, step + 1)[0])]
    for (_, number), columns in zip(found.queries, batch_documents, strict=True):
        record = found.source[int(number)]
        order, scores = found.ranking(record)
        free = [document for document in order[:6].tolist() if document not in found.positives(record)]
        positive = columns[0] if columns[0] in found.positives(record) else None
        if positive is not None:
            free.sort(key=lambda document: abs(scores[document] - scores[positive]))
        expected.append(None if positive is None else free[:count])
    return expected


@pytest.mark.parametrize(
    ("sampler", "count"),
    [
        ({"sampler": "simans", "simans_a": 1e7}, 2),
        ({"sampler": "trisampler", "trisampler_scale": 1e-7, "trisampler_candidates": 1}, 1),
    ],
)
def test_a_sharp_sampler_draws_the_documents_as_near_as_the_positive(records, sampler, count):
    found = Refreshed(records, **sampler)
    expected = nearest_to_the_positive(found, count)
    assert sum(documents is not None for documents in expected) > 20
    for documents, drawn in zip(expected, found.table, strict=True):
        kept = [document for document in drawn.tolist() if document >= 0]
        assert kept == (documents or [])


def test_a_batch_holds_a_positive_and_the_drawn_documents_with_their_tokens(records):
    found = Refreshed(records)
    limit = found.config.encoder.max_document_tokens
    for step in (4, 8):
        (batch,) = found.batches(step, step + 1)
        table = found.table[(step - 4) * 8 : (step - 3) * 8]
        queries = found.queries[(step - 4) * 8 : (step - 3) * 8]
        for row, (columns, drawn) in enumerate(zip(found.documents_of(batch), table, strict=True)):
            record = found.source[int(queries[row, 1])]
            highest = record.document_levels.max()
            chosen = [
                found.number[tuple(pair)]
                for pair, level in zip(record.document_ids.tolist(), record.document_levels, strict=True)
                if level == highest
            ]
            assert columns[0] in chosen
            assert columns[1 : 1 + (drawn >= 0).sum()] == drawn[drawn >= 0].tolist()
        seen = set()
        for words in map(tuple, batch.document_ids.tolist()):
            if any(words) and words not in seen:
                seen.add(words)
                tokens = found.documents[found.number[words]].document_tokens[0][:limit]
                assert contained(tokens, batch.texts[0].tokens[0])


def contained(tokens, rows):
    """Whether a row holds the tokens one after the other. A text that is cut ends with another token."""
    length = len(tokens) - 1
    return any(
        (row[start : start + length] == tokens[:length]).all() for row in rows for start in range(len(row) - length + 1)
    )


def untimed(run):
    return [{name: line[name] for name in line if name not in TIMING_FIELDS} for line in read_metrics(run)]


@pytest.fixture(scope="module")
def uninterrupted(records, tmp_path_factory):
    run = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        use_bag_encoder(patch)
        dual_encoder.train(REFRESHED, records_path=records, run=run)
    return run


def test_the_staleness_is_logged_and_each_refresh_is_an_event(uninterrupted):
    staleness = [line.get("negatives_staleness_steps") for line in read_metrics(uninterrupted)]
    assert staleness == [None] * 4 + [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    events = [line for line in read_goodput(uninterrupted) if line.get("event") == "refresh"]
    assert [line["step"] for line in events] == [4, 9, 14]
    assert all(line["documents"] == 56 and line["negatives"] > 0 for line in events)
    assert sum(line.get("refresh_seconds", 0) for line in read_goodput(uninterrupted)) > 0


def test_a_refresh_changes_what_is_learnt(uninterrupted, records, tmp_path):
    config = dataclasses.replace(REFRESHED, negatives=NegativesConfig())
    dual_encoder.train(config, records_path=records, run=tmp_path)
    with_refresh, without = untimed(uninterrupted), untimed(tmp_path)
    assert [line["loss"] for line in with_refresh[:4]] == pytest.approx(
        [line["loss"] for line in without[:4]], rel=1e-4
    )
    assert all(one["loss"] != two["loss"] for one, two in zip(with_refresh[4:], without[4:], strict=True))


class Crash(Exception):
    """Ends a run at once."""


@pytest.mark.parametrize("place", ["warm-up", "first refresh", "between", "later refresh", "after the last"])
def test_a_crash_anywhere_leaves_no_trace(uninterrupted, records, tmp_path, monkeypatch, place):
    steps = {"warm-up": 3, "between": 8, "after the last": 16}
    config = REFRESHED.replace(training={"checkpoint_every_steps": 3})
    with monkeypatch.context() as patch:
        if place in steps:
            original = dual_encoder.batches

            def crashing(source, config, *, start_step, **others):
                for number, batch in enumerate(original(source, config, start_step=start_step, **others)):
                    if start_step + number + 1 == steps[place]:
                        raise Crash
                    yield batch

            patch.setattr(dual_encoder, "batches", crashing)
        else:
            mine, calls = RefreshedNegatives._mine, []

            def crashing_mine(self, *arguments):
                calls.append(arguments)
                if len(calls) == (1 if place == "first refresh" else 2):
                    raise Crash
                return mine(self, *arguments)

            patch.setattr(RefreshedNegatives, "_mine", crashing_mine)
        with pytest.raises(Crash):
            dual_encoder.train(config, records_path=records, run=tmp_path)
    dual_encoder.train(config, records_path=records, run=tmp_path)
    assert untimed(tmp_path) == untimed(uninterrupted)
    one, two = (checkpoints.restore_parameters(run, which="last") for run in (tmp_path, uninterrupted))
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("warmup", [0, 4])
def test_a_signal_ends_a_refresh_at_once(records, tmp_path, monkeypatch, warmup):
    encode, calls = MeshEncoder.__call__, []

    def told(self, *arguments, **others):
        calls.append(arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return encode(self, *arguments, **others)

    monkeypatch.setattr(MeshEncoder, "__call__", told)
    config = REFRESHED.replace(negatives={"warmup_steps": warmup}, training={"evaluate_every_steps": 0})
    with pytest.raises(Interrupted, match=f"interrupted at step {warmup} of 16; .*call the same command again"):
        dual_encoder.train(config, records_path=records, run=tmp_path)
    assert len(calls) == 1
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == ({warmup} if warmup else set())


def test_a_checkpoint_is_saved_before_a_refresh(records, tmp_path, monkeypatch):
    def crashing(self, *arguments):
        raise Crash

    monkeypatch.setattr(RefreshedNegatives, "_mine", crashing)
    config = REFRESHED.replace(training={"checkpoint_every_steps": 0, "evaluate_every_steps": 0})
    with pytest.raises(Crash):
        dual_encoder.train(config, records_path=records, run=tmp_path)
    assert checkpoints.saved_steps(tmp_path / "checkpoints") == {4}


def test_a_run_that_ends_in_its_warm_up_never_refreshes(records, tmp_path):
    config = REFRESHED.replace(negatives={"warmup_steps": 16})
    dual_encoder.train(config, records_path=records, run=tmp_path)
    assert not [line for line in read_goodput(tmp_path) if line.get("event") == "refresh"]
    assert not [line for line in read_metrics(tmp_path) if "negatives_staleness_steps" in line]


def test_records_without_all_documents_are_refused(tmp_path):
    records = tiny_records(tmp_path / "records")
    with (
        pytest.raises(InputError, match=r"data\.write_records --all-documents"),
        open_run(tmp_path / "run", config=REFRESHED, records=records, arguments={}),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"positives_per_query": 0}}, "positives_per_query must lie in 1 to documents_per_query - 1, 2"),
        ({"data": {"positives_per_query": 3}}, "positives_per_query must lie in 1 to documents_per_query - 1, 2"),
        ({"encoder": {"query_codes": 4}}, "query_codes must be 0 with negatives.refresh_every_steps"),
        ({"negatives": {"refresh_every_steps": 0}}, "warmup_steps needs refreshes"),
        ({"negatives": {"top": 0}}, "top must be positive"),
        ({"negatives": {"simans_a": 0.0}}, "simans_a must be positive and finite"),
        ({"negatives": {"simans_b": float("nan")}}, "simans_b must be finite"),
    ],
)
def test_a_configuration_that_cannot_refresh_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        REFRESHED.replace(**changes)


def test_frozen_documents_take_no_refresh():
    config = REFRESHED.replace(encoder={"shared_towers": False}, loss={"name": "lambda_mrr"})
    with pytest.raises(InputError, match="nothing is left to refresh"):
        check_frozen(config)
