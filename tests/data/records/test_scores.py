"""Records with the scores of the relevance discriminator: what is scored, the bytes beside it, and what is refused."""

import dataclasses

import numpy as np
import pytest

from crops_jax import artifacts, records
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.errors import InputError
from crops_jax.hashing import document_id_words
from crops_jax.text import document_text, tokenizer
from data.inspection.training import describe_records
from data.mining.relevance.theta import Fitted, Theta, save_theta
from data.tables import open_logs
from data.write_records import WriteRecordsArguments, write_records
from tests.data.records.labels import THINGS, all_records, arguments, files_of, label_rows, write_labels

FITTED = Fitted(
    kind="lexical",
    source="judgements",
    relevant_grade=1.0,
    pairs=len(THINGS) ** 2,
    populations={},
    ece_before=0.1,
    ece_after=0.1,
    calibrated_on="held-out queries",
    latest_time="2026-01-31T00:00:00+00:00",
    unsplit_judgements=0,
)


def save_discriminator(folder, **fitted):
    pairs = [(query, document) for query in THINGS for document in THINGS]
    targets = np.array([0.1 + 0.8 * (query == document) for query, document in pairs])
    queries, documents = zip(*pairs, strict=True)
    theta = LexicalDiscriminator.fit(queries, documents, targets, corpus=THINGS)
    save_theta(Theta(theta, dataclasses.asdict(dataclasses.replace(FITTED, **fitted))), folder)
    return theta


@pytest.fixture(scope="module")
def written(logs, tmp_path_factory):
    path = tmp_path_factory.mktemp("scored")
    theta = save_discriminator(path / "discriminator")
    labels = write_labels(path / "labels", label_rows(), logs=logs)
    given = arguments(labels, logs, path / "plain", documents_per_query=6)
    write_records(given)
    scored = dataclasses.replace(given, output=str(path / "scored"), discriminator=str(path / "discriminator"))
    return path, theta, scored, write_records(scored)


def test_the_documents_whose_text_is_written_have_theta_of_their_whole_text(logs, written):
    path, theta, _, outcome = written
    tables, tokens = open_logs(logs), tokenizer.load(path / "scored" / "tokenizer")
    texts = {
        tuple(words): document_text(row)
        for name in ("documents", "knowledge_documents")
        for row in tables.read(name).to_pylist()
        for words in document_id_words([row["doc_id"]]).tolist()
    }
    queries = {tokens.encode([query], max_tokens=8)[0].tobytes(): query for query, *_ in label_rows()}
    distinct = set()
    for record in all_records(path / "scored"):
        query, with_text = queries[record.query_tokens.tobytes()], set(map(tuple, record.document_ids.tolist()))
        assert len(with_text) == 6
        for words, score in zip(map(tuple, record.labelled_ids.tolist()), record.labelled_scores, strict=True):
            if words not in with_text:
                assert np.isnan(score)
                continue
            assert score == pytest.approx(float(theta.score([query], [texts[words]])[0]), abs=1e-6)
            distinct.add(float(score))
    assert len(distinct) > 10
    assert outcome["labels_scored"] == outcome["texts_written"] == 72
    manifest = artifacts.read_manifest(path / "scored")
    assert manifest["inputs"]["discriminator"]["fingerprint"] == artifacts.fingerprint(path / "discriminator")
    described = describe_records(path / "scored")["splits"]
    assert sum(split["labels_scored"] for split in described.values()) == 72


def test_nothing_else_of_a_record_changes_and_records_without_scores_have_no_trace_of_them(written):
    path, *_ = written
    for plain, scored in zip(all_records(path / "plain"), all_records(path / "scored"), strict=True):
        assert plain.labelled_scores is None
        assert records.encode_record(scored._replace(labelled_scores=None)) == records.encode_record(plain)
    assert all("labels_scored" not in split for split in describe_records(path / "plain")["splits"].values())


@pytest.mark.slow
def test_the_bytes_are_the_same_for_any_number_of_workers(written, tmp_path):
    path, _, scored, _ = written
    write_records(dataclasses.replace(scored, output=str(tmp_path / "records"), workers=2))
    ours, theirs = files_of(path / "scored"), files_of(tmp_path / "records")
    assert {name: ours[name] for name in ours if name != "manifest.json"} == {
        name: theirs[name] for name in theirs if name != "manifest.json"
    }


def test_a_discriminator_that_read_what_is_held_out_is_refused(written, logs, tmp_path):
    _, _, scored, _ = written
    save_discriminator(tmp_path / "late", latest_time="2026-02-01T00:00:00+00:00")
    given = dataclasses.replace(scored, discriminator=str(tmp_path / "late"), output=str(tmp_path / "records"))
    labels = write_labels(tmp_path / "labels", label_rows())
    manifest = {"program": "data.mine", "kind": "labels", "inputs": {"logs": logs}}
    artifacts.write_manifest(labels, artifacts.new_manifest(arguments={"until": "2026-02-01"}, **manifest))
    with pytest.raises(InputError, match=r"read searches up to 2026-02-01.* were mined from those before 2026-02-01"):
        write_records(dataclasses.replace(given, labels=str(labels)))
    split = tmp_path / "split"
    split.mkdir()
    for file in logs.iterdir():
        (split / file.name).symlink_to(file)
    held_out = {"program": "data.hold_out", "kind": "logs", "inputs": {}}
    arguments_of_split = {"from_": "2026-02-01", "by": None, "fraction": None, "seed": 0}
    artifacts.write_manifest(split, artifacts.new_manifest(arguments=arguments_of_split, **held_out))
    of_split = write_labels(tmp_path / "of_split", label_rows())
    with pytest.raises(
        InputError, match=r"--discriminator .*late read searches up to 2026-02-01.* answers of the test"
    ):
        write_records(dataclasses.replace(given, labels=str(of_split), logs=str(split)))
    assert not (tmp_path / "records").exists()


def test_scores_and_spark_exclude_each_other():
    with pytest.raises(ValueError, match="--discriminator scores on one machine"):
        WriteRecordsArguments(labels="l", logs="l", output="r", discriminator="d", backend="pyspark")
