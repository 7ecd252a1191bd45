import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from crops_jax import artifacts
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.errors import InputError
from data.mining.relevance.theta import Fitted, Theta, save_theta
from data.tables import open_logs, write_table
from launch.corpus.documents import Corpus
from launch.evaluation.reranking import open_reranker, rerank, reranking_note
from launch.evaluation.searching import Retrieved

TITLES = ["red car", "blue boat", "red boat", "grey kite", "old red car", "blue kite"]
CORPUS = Corpus(doc_ids=[f"d{row}" for row in range(6)], titles=TITLES, texts=TITLES)
QUERIES = ["red car", "blue kite"]
FITTED = Fitted(
    kind="lexical",
    source="judgements",
    relevant_grade=None,
    pairs=4,
    populations={},
    ece_before=0.1,
    ece_after=0.1,
    calibrated_on="held-out queries",
    latest_time="2026-01-31T00:00:00+00:00",
    unsplit_judgements=0,
)


def theta(*, seed=0, **fitted):
    generator = np.random.default_rng(seed)
    pairs = [(query, title) for query in QUERIES for title in TITLES]
    targets = np.array([float(query == title) for query, title in pairs]) + generator.uniform(0, 0.1, len(pairs))
    queries, documents = zip(*pairs, strict=True)
    model = LexicalDiscriminator.fit(queries, documents, np.minimum(targets, 1), corpus=TITLES)
    return Theta(model, dataclasses.asdict(dataclasses.replace(FITTED, **fitted)))


def make(directory, *, inputs, program="data.hold_out", kind="logs", **arguments):
    directory.mkdir(exist_ok=True)
    manifest = artifacts.new_manifest(program=program, kind=kind, arguments=arguments, inputs=inputs)
    artifacts.write_manifest(directory, manifest)


@pytest.fixture
def split(tmp_path):
    """SPLIT of data.hold_out --from 2026-02-01, with a discriminator in it."""
    make(tmp_path / "logs", program="data.simulate", inputs={})
    make(tmp_path / "split", inputs={"logs": tmp_path / "logs"}, from_="2026-02-01", by=None, fraction=None, seed=0)
    rows = [{"doc_id": doc_id, "title": title} for doc_id, title in zip(CORPUS.doc_ids, TITLES, strict=True)]
    write_table(tmp_path / "split", "documents", pa.Table.from_pylist(rows))
    judged = [{"query": "red car", "doc_id": "d0", "grade": 1.0, "split": "test"}]
    write_table(tmp_path / "split", "judgements", pa.Table.from_pylist(judged))
    save_theta(theta(), tmp_path / "split" / "discriminator")
    return tmp_path / "split"


def test_the_first_documents_are_sorted_by_theta(split):
    generator = np.random.default_rng(0)
    indices = np.stack([generator.permutation(6), [*generator.permutation(6)[:4], -1, -1]]).astype(np.int32)
    encoder = Retrieved(np.zeros(indices.shape, np.float32), indices)
    reranker = open_reranker(open_logs(split), "")
    for depth in (3, 5, 200):
        found, described = rerank(encoder, QUERIES, CORPUS, reranker, depth=depth)
        for query, before, after in zip(QUERIES, indices.tolist(), found.indices.tolist(), strict=True):
            held = [index for index in before[:depth] if index >= 0]
            score = {index: float(theta().discriminator.score([query], [TITLES[index]])[0]) for index in held}
            wanted = sorted(held, key=lambda index: (-score[index], before.index(index)))
            assert after == wanted + before[len(wanted) :]
        assert described["reranking"]["depth"] == min(depth, 6)
    # Theta prefers the titles that equal the queries.
    assert found.indices[:, 0].tolist()[0] == 0


def test_the_discriminator_is_the_one_of_the_split_or_the_named_one(split, tmp_path):
    logs = open_logs(split)
    kept = open_reranker(logs, "")
    assert (kept.origin, kept.chose_qr) == ("SPLIT/discriminator", True)
    save_theta(theta(), tmp_path / "copy")
    assert open_reranker(logs, str(tmp_path / "copy")).chose_qr is True
    save_theta(theta(seed=1), tmp_path / "other")
    other = open_reranker(logs, str(tmp_path / "other"))
    assert (other.origin, other.chose_qr) == ("--reranker", False)
    (split / "discriminator").rename(split / "elsewhere")
    assert open_reranker(logs, str(tmp_path / "other")).chose_qr is None
    with pytest.raises(InputError, match="keeps no discriminator; name one with --reranker"):
        open_reranker(logs, "")


def test_one_that_read_the_test_period_is_refused(split, tmp_path):
    save_theta(theta(latest_time="2026-02-01T00:00:00+00:00"), tmp_path / "late")
    with pytest.raises(InputError, match="read searches up to 2026-02-01"):
        open_reranker(open_logs(split), str(tmp_path / "late"))


def test_one_that_read_judgements_without_a_split_must_be_of_this_split(split, tmp_path):
    save_theta(theta(unsplit_judgements=3), tmp_path / "theta")
    make(tmp_path / "theta", kind="discriminator", program="launch.train_discriminator", inputs={"logs": split})
    open_reranker(open_logs(split), str(tmp_path / "theta"))
    make(tmp_path / "theta", kind="discriminator", program="launch.train_discriminator", inputs={})
    with pytest.raises(InputError, match="may have read what is held out"):
        open_reranker(open_logs(split), str(tmp_path / "theta"))


def test_with_groups_held_out_it_must_be_of_the_same_groups(split, tmp_path):
    held_out = {"from_": None, "by": "group", "fraction": 0.2}
    make(split, inputs={"logs": tmp_path / "logs"}, seed=0, **held_out)
    save_theta(theta(), tmp_path / "theta")
    for seed, refused in ((0, False), (1, True)):
        make(tmp_path / "before", inputs={"logs": tmp_path / "logs"}, seed=seed, **held_out)
        inputs = {"logs": tmp_path / "before"}
        make(tmp_path / "theta", kind="discriminator", program="launch.train_discriminator", inputs=inputs)
        if refused:
            with pytest.raises(InputError, match="may have read what is held out"):
                open_reranker(open_logs(split), str(tmp_path / "theta"))
        else:
            open_reranker(open_logs(split), str(tmp_path / "theta"))


def test_the_note_says_that_qr_is_circular():
    assert "QR figures are circular" in reranking_note({"chose_qr": True})
    assert "as far as is known" in reranking_note({"chose_qr": None})
    assert "circular" not in reranking_note({"chose_qr": False})
