import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crops_jax import artifacts, program, training
from crops_jax.embeddings import open_embeddings
from crops_jax.errors import InputError
from crops_jax.hard_negatives import Selection, id_hashes
from crops_jax.run_log import read_metrics
from crops_jax.training import train
from data.assign_levels import LABEL_SCHEMA, PRECEDENCE
from data.inspect import describe
from data.label_table import mined_from, open_labels
from data.mine import MineArguments, mine
from data.mined_labels import SOURCE, MinedLabels
from data.write_records import WriteRecordsArguments, write_records
from launch.embed import Arguments as EmbedArguments
from launch.embed import embed
from launch.mine_negatives import MineNegativesArguments, mine_negatives
from launch.neighbours import Block, Corpus, Tally, mine_block
from tests.embedding_folders import at_cosines, write_embeddings
from tests.model_folders import write_bert
from tests.tiny_run import CONFIG as TINY
from tests.tiny_run import BagEncoder

# Cosines to the query "red shoe", which is (1, 0): best first.
COSINES = {"a": 0.9, "b": 0.8, "c": 0.8, "d": 0.7, "e": 0.6, "f": 0.5, "g": -0.2}
ENTRY = '"via_query": null, "gap_seconds": null, "supporters": null}'
KEPT = '[{"source": "shown_not_clicked", "level": 3, "score": null, ' + ENTRY + "]"
LABELS = [
    ("red shoe", "a", 4, "search_log", None, '[{"source": "search_log", "level": 4}]'),
    ("red shoe", "e", 3, "shown_not_clicked", None, KEPT),
    ("red shoe", "f", 1, "filtered_before_ranking", 0.25, None),
]


def write_labels(path, rows=LABELS, *, logs=None, files=1):
    path.mkdir(parents=True)
    table = pa.Table.from_pylist([dict(zip(LABEL_SCHEMA.names, row, strict=True)) for row in rows], LABEL_SCHEMA)
    if files == 1:
        pq.write_table(table, path / "labels.parquet")
    else:
        (path / "labels").mkdir()
        for number in range(files):
            pq.write_table(table.slice(number, 1), path / "labels" / f"{number}.parquet")
    if logs is not None:
        manifest = artifacts.new_manifest(program="data.mine", kind="labels", arguments={}, inputs={"logs": logs})
        artifacts.write_manifest(path, manifest)
    return path


def read_rows(path):
    return pq.read_table(Path(path) / "labels.parquet").to_pylist()


@pytest.fixture
def folders(tmp_path):
    write_labels(tmp_path / "labels")
    write_embeddings(tmp_path / "queries", ["lamp", "red shoe"], [[0, 1], [1, 0]], tower="query")
    # Not in the order of their ids: ties go by id all the same.
    ids = list(COSINES)[::-1]
    write_embeddings(
        tmp_path / "documents", ids, at_cosines(*(COSINES[i] for i in ids)), tower="document", shard_rows=3
    )
    return tmp_path


def arguments(folders, **given):
    named = {name: str(folders / name) for name in ("labels",)}
    named |= {
        f"{name}_embeddings": str(folders / place) for name, place in (("query", "queries"), ("document", "documents"))
    }
    return MineNegativesArguments(**({**named, "output": str(folders / "mined"), "level": 2} | given))


def new_rows(path):
    return [row["doc_id"] for row in read_rows(path) if row["source"] == SOURCE]


def test_the_nearest_documents_that_are_no_positives_become_negatives(folders):
    outcome = mine_negatives(arguments(folders, per_query=2))
    rows = {row["doc_id"]: row for row in read_rows(folders / "mined")}
    assert list(rows) == ["a", "b", "c", "e", "f"]
    mined = '[{"source": "model_mined", "level": 2, "score": 0.8, ' + ENTRY + "]"
    assert rows["b"] == {
        "query": "red shoe", "doc_id": "b", "level": 2, "source": SOURCE, "score": 0.8, "evidence": mined
    }  # fmt: skip
    assert rows["a"] == dict(zip(LABEL_SCHEMA.names, LABELS[0], strict=True))
    # e is a negative of a higher level: it keeps its row, and the model's word is added to its evidence.
    again = '{"source": "model_mined", "level": 2, "score": 0.6, ' + ENTRY
    assert (rows["e"]["level"], rows["e"]["source"], rows["e"]["score"]) == (3, "shown_not_clicked", None)
    assert rows["e"]["evidence"] == f"[{again}, {KEPT[1:]}"
    # f is one of a lower level: as everywhere the highest wins.
    assert (rows["f"]["level"], rows["f"]["source"], rows["f"]["score"]) == (2, SOURCE, 0.5)
    assert json.loads(rows["f"]["evidence"])[0]["score"] == 0.5
    assert outcome["rows"] == 5
    assert (outcome["mined"], outcome["met_again"], outcome["raised"]) == (2, 2, 1)
    assert (outcome["queries"], outcome["documents"], outcome["positives_passed_over"]) == (1, 7, 1)
    assert outcome["by_source"] == {"model_mined": 3, "search_log": 1, "shown_not_clicked": 1}
    assert outcome["by_level"] == {"2": 3, "3": 1, "4": 1}
    assert outcome["scores"]["mined"] == {"mean": 0.8, "least": 0.8, "greatest": 0.8}
    assert outcome["false_negatives"]["why"] == "no --logs was given"
    described = describe(folders / "mined")
    assert described["sources"] == outcome["by_source"]
    assert artifacts.read_manifest(folders / "mined")["mined"]["mined"] == 2


@pytest.mark.parametrize(
    ("given_", "taken"),
    [
        ({}, "bcdg"),
        ({"per_query": 1}, "b"),
        ({"top": 3}, "bcd"),
        ({"top": 4, "skip": 1}, "cd"),
        ({"top": 6, "skip": 5}, "g"),
        ({"top": 1000}, "bcdg"),
        ({"absolute_margin": 0.1}, "dg"),
        ({"absolute_margin": 0.099999}, "bcdg"),
        ({"relative_margin": 0.2}, "dg"),
        ({"relative_margin": 0.3, "absolute_margin": 0.0}, "g"),
        ({"sampling": "random", "per_query": 100}, "bcdg"),
    ],
)
def test_window_and_margins(folders, given_, taken):
    outcome = mine_negatives(arguments(folders, **given_))
    # Level 2 raises f too wherever it is considered.
    assert [doc_id for doc_id in new_rows(folders / "mined") if doc_id != "f"] == list(taken)
    assert outcome["mined"] == len(taken)


def test_a_margin_to_the_least_positive_is_one_to_each(folders):
    write_labels(folders / "two", [*LABELS[:1], ("red shoe", "d", 5, "query_level", 0.9, None)])
    mine_negatives(arguments(folders, labels=str(folders / "two"), absolute_margin=0.05))
    assert new_rows(folders / "mined") == ["b", "c", "e", "f", "g"]
    mine_negatives(
        arguments(folders, labels=str(folders / "two"), absolute_margin=0.05, margin_to="least", overwrite=True)
    )
    assert new_rows(folders / "mined") == ["e", "f", "g"]


def test_a_table_in_a_folder_gives_the_same_bytes(folders):
    write_labels(folders / "many", LABELS[::-1], files=3)
    mine_negatives(arguments(folders))
    mine_negatives(arguments(folders, labels=str(folders / "many"), output=str(folders / "again")))
    name = "labels.parquet"
    assert (folders / "mined" / name).read_bytes() == (folders / "again" / name).read_bytes()
    mine_negatives(arguments(folders, output=str(folders / "third")))
    for file in (name, "manifest.json"):
        assert (folders / "mined" / file).read_bytes() == (folders / "third" / file).read_bytes()


def test_mining_twice_adds_nothing(folders):
    mine_negatives(arguments(folders, per_query=8))
    outcome = mine_negatives(arguments(folders, labels=str(folders / "mined"), output=str(folders / "again")))
    assert outcome["mined"] == 0
    assert read_rows(folders / "again") == read_rows(folders / "mined")


def test_queries_that_nothing_can_be_mined_for_are_counted(folders):
    rows = [*LABELS, ("lamp", "a", 2, "ranked_not_shown", None, None), ("hat", "a", 4, "search_log", None, None)]
    write_labels(folders / "more", rows)
    named = {"labels": str(folders / "more")}
    with pytest.raises(
        InputError, match=r"1 queries .* no vector, 'hat' the first; .*--texts .*--missing-queries count"
    ):
        mine_negatives(arguments(folders, **named))
    outcome = mine_negatives(arguments(folders, missing_queries="count", **named))
    assert (outcome["queries"], outcome["queries_without_positive"], outcome["queries_without_vector"]) == (1, 1, 1)
    assert {row["query"] for row in read_rows(folders / "mined") if row["source"] == SOURCE} == {"red shoe"}
    assert outcome["queries_with_fewer"] == 1


def test_a_query_whose_positive_has_no_vector_keeps_no_margin(folders):
    rows = [("red shoe", "unknown", 4, "search_log", None, None), ("lamp", "a", 4, "search_log", None, None)]
    write_labels(folders / "more", rows)
    outcome = mine_negatives(arguments(folders, labels=str(folders / "more"), absolute_margin=0.0))
    assert outcome["positives_without_vector"] == 1
    assert outcome["queries_without_scored_positive"] == 1
    assert {row["query"] for row in read_rows(folders / "mined") if row["source"] == SOURCE} <= {"lamp"}
    outcome = mine_negatives(arguments(folders, labels=str(folders / "more"), overwrite=True))
    assert outcome["mined"] == 7 + 6


def test_one_document_and_it_is_the_positive(folders):
    write_embeddings(folders / "single", ["a"], [[1, 0]], tower="document")
    outcome = mine_negatives(arguments(folders, document_embeddings=str(folders / "single")))
    assert outcome["mined"] == 0
    assert outcome["queries_with_none"] == 1
    assert read_rows(folders / "mined") == [dict(zip(LABEL_SCHEMA.names, row, strict=True)) for row in LABELS]


def write_logs(path, judgements=(), documents=COSINES):
    path.mkdir()
    titles = [{"doc_id": i, "title": {"c": "RED  shoe", "a": "red shoe"}.get(i, f"thing {i}")} for i in documents]
    pq.write_table(pa.Table.from_pylist(titles), path / "documents.parquet")
    kept = judgements or [("lamp", "a", 1.0, "dev")]
    columns = dict(zip(("query", "doc_id", "grade", "split"), map(list, zip(*kept, strict=True)), strict=True))
    columns["split"] = pa.array(columns["split"], pa.string())
    pq.write_table(pa.table(columns), path / "judgements.parquet")
    return path


def test_false_negatives_are_counted_on_judgements_of_split_train(folders):
    judged = [
        ("red shoe", "b", 2.0, "train"),
        ("RED shoe", "c", 0.0, None),
        ("red shoe", "d", 3.0, "test"),
        ("red shoe", "g", 1.0, "dev"),
        ("red shoe", "a", 3.0, "train"),
        ("red shoe", "e", 3.0, "train"),
    ]
    logs = write_logs(folders / "logs", judged)
    outcome = mine_negatives(arguments(folders, logs=str(logs)))
    # b and c are judged; d and g are of other splits; a is a positive and e was a negative before.
    found = outcome["false_negatives"]
    assert (found["judged"], found["relevant"], found["queries"], found["mined"]) == (2, 1, 1, 4)
    assert found["rate"] == 0.5
    # Wilson's interval of 1 in 2.
    assert (found["low"], found["high"]) == (0.0945, 0.9055)
    outcome = mine_negatives(arguments(folders, logs=str(logs), relevant_grade=3.0, overwrite=True))
    assert outcome["false_negatives"]["rate"] == 0.0
    assert outcome["false_negatives"]["low"] == 0.0
    assert 0.6 < outcome["false_negatives"]["high"] < 0.7


def test_it_is_said_that_nothing_was_judged(folders):
    outcome = mine_negatives(arguments(folders, logs=str(write_logs(folders / "logs"))))
    found = outcome["false_negatives"]
    assert found["rate"] is None
    assert found["why"] == "no judgement of split train names a mined pair"


def test_documents_with_the_text_of_a_positive_are_left_out_where_asked(folders):
    logs = write_logs(folders / "logs")
    outcome = mine_negatives(arguments(folders, logs=str(logs), exclude_same_text=True))
    assert outcome["positives_passed_over"] == 2
    assert [doc_id for doc_id in new_rows(folders / "mined") if doc_id != "f"] == ["b", "d", "g"]


def test_the_chain_to_the_logs_stays_whole(folders):
    logs = write_logs(folders / "logs")
    labels = write_labels(folders / "signed", logs=logs)
    mine_negatives(arguments(folders, labels=str(labels), logs=str(logs)))
    assert mined_from(folders / "mined") == artifacts.fingerprint(logs)
    other = write_logs(folders / "other", [("lamp", "b", 1.0, "train")])
    with pytest.raises(InputError, match="were mined from other log tables"):
        mine_negatives(arguments(folders, labels=str(labels), logs=str(other), output=str(folders / "x")))


def signed(path, kind, *, inputs, program="data.mine", **arguments_):
    """A directory of which only the manifest matters."""
    path.mkdir(exist_ok=True)
    artifacts.write_manifest(
        path, artifacts.new_manifest(program=program, kind=kind, arguments=arguments_, inputs=inputs)
    )
    return path


def test_a_run_that_saw_the_test_period_is_refused(folders):
    whole = signed(folders / "whole", "logs", inputs={}, program="data.simulate")
    split = signed(
        write_logs(folders / "split"), "logs", inputs={"logs": whole}, program="data.hold_out", from_="2024-05-01"
    )
    labels = write_labels(folders / "signed", logs=split)
    for name, logs, until in (("sees", whole, None), ("stops", whole, "2024-05-01"), ("split-only", split, None)):
        learnt = signed(folders / f"{name}-labels", "labels", inputs={"logs": logs}, until=until)
        records = signed(folders / f"{name}-records", "records", inputs={"labels": learnt})
        run = signed(folders / f"{name}-run", "run", inputs={"records": records})
        embedded = write_embeddings(
            folders / name, list(COSINES), at_cosines(*COSINES.values()), tower="document", inputs={"run": run}
        )
        given_ = arguments(
            folders, labels=str(labels), document_embeddings=str(embedded), output=str(folders / f"{name}-mined")
        )
        if name == "sees":
            with pytest.raises(InputError, match=r"the run of .*sees was trained on labels .* has seen the answers"):
                mine_negatives(given_)
        else:
            assert mine_negatives(given_)["mined"] == 4


def test_what_does_not_belong_together_is_refused(folders):
    vectors, ids = at_cosines(*COSINES.values()), list(COSINES)
    with pytest.raises(InputError, match=r"--document-embeddings .*vectors of the query tower.*--tower document"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "queries")))
    with pytest.raises(InputError, match=r"--query-embeddings .*vectors of the document tower"):
        mine_negatives(arguments(folders, query_embeddings=str(folders / "documents")))
    write_embeddings(folders / "foreign", ids, vectors, tower="document", encoder="e1")
    with pytest.raises(InputError, match="of different encoders"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "foreign")))
    write_embeddings(folders / "wide", ids, np.eye(7), tower="document")
    with pytest.raises(InputError, match=r"2 numbers and .* of 7"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "wide")))
    write_embeddings(folders / "long", ids, 2 * vectors, tower="document", normalise=False)
    with pytest.raises(InputError, match=r"row 0 .*a vector of length 2, not 1"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "long")))
    write_embeddings(folders / "others", ["x", "y"], vectors[:2], tower="document")
    with pytest.raises(InputError, match="none of the 3 labelled documents"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "others")))
    logs = write_logs(folders / "logs", documents="abcdef")
    with pytest.raises(InputError, match="1 documents, 'g' the first, are not in table documents"):
        mine_negatives(arguments(folders, logs=str(logs)))
    with pytest.raises(InputError, match="is no size"):
        mine_negatives(arguments(folders, memory_limit="much"))
    with pytest.raises(InputError, match="overlap"):
        mine_negatives(arguments(folders, output=str(folders / "labels"), overwrite=True))
    write_labels(folders / "negatives", LABELS[1:])
    with pytest.raises(InputError, match="no query has both a positive and a vector"):
        mine_negatives(arguments(folders, labels=str(folders / "negatives")))
    assert not (folders / "mined").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "lost"])
def test_a_damaged_shard_is_named(folders, damage):
    file = folders / "documents" / "embeddings-00001-of-00003.npy"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "cut" else content)
    with pytest.raises(InputError, match=r"embeddings-00001-of-00003.npy|shard 1 is damaged"):
        mine_negatives(arguments(folders))
    assert not (folders / "mined").exists()


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"level": 4}, "--level must be that of a negative, 0 to 3, found 4"),
        ({"level": -1}, "--level"),
        ({"skip": 100}, "--skip"),
        ({"exclude_same_text": True}, "--exclude-same-text needs --logs"),
        ({"relevant_grade": 1.0}, "--relevant-grade needs --logs"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(folders, given_, message):
    with pytest.raises(ValueError, match=message):
        arguments(folders, **given_)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_known_positive_is_ever_mined_and_tiles_decide_nothing(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any")
    queries, documents = 6, 12
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    # Few distinct vectors: many ties.
    vectors = [np.round(random.standard_normal((count, 3))) + [0.1, 0, 0] for count in (queries, documents)]
    pairs = data.draw(
        st.dictionaries(
            st.tuples(st.integers(0, queries - 1), st.integers(0, documents - 1)), st.integers(0, 5), min_size=1
        )
    )
    rows = [(f"q{q}", f"d{d}", level, "search_log", None, None) for (q, d), level in sorted(pairs.items())]
    labels = write_labels(path / "labels", rows)
    query_ids, doc_ids = [f"q{i}" for i in range(queries)], [f"d{i}" for i in range(documents)]
    write_embeddings(path / "queries", query_ids, vectors[0], tower="query", shard_rows=2)
    write_embeddings(path / "documents", doc_ids, vectors[1], tower="document", shard_rows=5)
    selection = Selection(
        top=data.draw(st.sampled_from([2, 20])),
        per_query=data.draw(st.integers(1, 5)),
        sampling=data.draw(st.sampled_from(["top", "random"])),
        absolute_margin=data.draw(st.sampled_from([None, 0.0, 0.3])),
    )
    found = []
    for block_rows, block_queries in ((3, 2), (100, 100)):
        embedded = open_embeddings(path / "queries"), open_embeddings(path / "documents")
        corpus = Corpus(embedded[1], block_rows=block_rows)
        mined = set()
        with open_labels(labels) as (connection, _):
            table = MinedLabels(connection, query_ids=query_ids, doc_ids=doc_ids, memory_limit="100MB")
            for _, vector_rows, names, labelled in table.blocks(block_queries):
                block = Block(embedded[0].array()[vector_rows], id_hashes(names), labelled)
                for some in mine_block(block, corpus, selection, Tally(selection), progress=lambda pairs: None):
                    for query, document, score, new in zip(*some, strict=True):
                        mined.add((names[query], doc_ids[document], score, bool(new)))
        found.append(mined)
    assert found[0] == found[1]
    known = {(f"q{q}", f"d{d}"): level for (q, d), level in pairs.items()}
    for query, document, _, new in found[0]:
        assert known.get((query, document), -1) < 4
        assert new == ((query, document) not in known)
        assert any(level >= 4 for (other, _), level in known.items() if other == query)


def test_scann_finds_the_same_among_few(folders):
    pytest.importorskip("scann")
    mine_negatives(arguments(folders))
    outcome = mine_negatives(arguments(folders, search="scann", output=str(folders / "scann")))
    assert outcome["search"]["kind"].startswith("scann")
    assert (folders / "scann" / "labels.parquet").read_bytes() == (folders / "mined" / "labels.parquet").read_bytes()


def test_scann_is_not_replaced_by_exact_search_where_it_is_missing(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    with pytest.raises(InputError, match=r"--search scann: .*install scann"):
        mine_negatives(arguments(folders, search="scann"))


def test_the_source_has_its_place_among_all():
    assert PRECEDENCE[-1] == SOURCE


def run_program(folders, capfd, *given_):
    named = {"labels": "labels", "query-embeddings": "queries", "document-embeddings": "documents", "output": "mined"}
    command = [f"--{name}={folders / place}" for name, place in named.items()]
    with pytest.raises(SystemExit) as ended:
        program.run(mine_negatives, example="", arguments=[*command, *given_])
    output, complaint = capfd.readouterr()
    assert "Traceback" not in complaint
    return ended.value.code, output, complaint


def test_the_program_prints_one_line_and_exits_with_its_status(folders, capfd):
    status, output, _ = run_program(folders, capfd, "--level", "1", "--absolute-margin", ".1")
    assert status == 0
    assert json.loads(output)["mined"] == 2
    for given_, message in (
        (("--level", "1"), "add --overwrite"),
        (("--level", "4"), "--level must be that of a negative"),
        (("--level", "1", "--top", "none"), "--top"),
        ((), "--level"),
        (("--level", "1", "--overwrite", "--logs", str(folders / "nowhere")), "nowhere"),
    ):
        status, output, complaint = run_program(folders, capfd, *given_)
        assert (status, output) == (2, "")
        assert message in complaint


@pytest.mark.slow
def test_embedded_mined_written_and_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "create_dual_encoder", BagEncoder)
    run = write_bert(tmp_path / "bert", layers=1)
    words = ["red", "blue", "shoe", "lamp", "garden", "hose"]
    titles = {f"d{i}": f"{words[i % 6]} {words[i % 5]} {i}" for i in range(30)}
    logs = tmp_path / "logs"
    logs.mkdir()
    pq.write_table(pa.table({"doc_id": list(titles), "title": list(titles.values())}), logs / "documents.parquet")
    judged = {"query": [], "doc_id": [], "grade": [], "split": []}
    for i in range(12):
        for doc_id, grade in ((f"d{i}", 1.0), (f"d{i + 1}", 0.0)):
            row = (f"{words[i % 6]} {words[i % 5]}", doc_id, grade, "train")
            for column, value in zip(judged.values(), row, strict=True):
                column.append(value)
    pq.write_table(pa.table(judged), logs / "judgements.parquet")
    mine(MineArguments(
        logs=str(logs), output=str(tmp_path / "labels"), judgements_as_labels=True, grade_levels="0=3,1=4"
    ))  # fmt: skip
    for tower, texts in (("query", tmp_path / "labels"), ("document", logs)):
        embed(EmbedArguments(run=str(run), texts=str(texts), tower=tower, output=str(tmp_path / tower)))
    outcome = mine_negatives(MineNegativesArguments(
        labels=str(tmp_path / "labels"), query_embeddings=str(tmp_path / "query"), level=1, per_query=3,
        document_embeddings=str(tmp_path / "document"), logs=str(logs), output=str(tmp_path / "mined"),
    ))  # fmt: skip
    assert outcome["mined"] == 3 * outcome["queries"]
    assert outcome["false_negatives"]["rate"] is None
    written = write_records(WriteRecordsArguments(
        labels=str(tmp_path / "mined"), logs=str(logs), output=str(tmp_path / "records"), vocabulary_size=60,
        max_tokens=12, max_query_tokens=6,
    ))  # fmt: skip
    assert written["texts_written_by_level"]["1"] > 0
    vocabulary = artifacts.read_manifest(tmp_path / "records")["tokenizer"]["vocabulary_size"]
    config = TINY.replace(encoder={"vocabulary_size": vocabulary}, training={"steps": 1}, data={"labels_per_query": 16})
    train(config, records_path=tmp_path / "records", run=tmp_path / "run")
    (line,) = read_metrics(tmp_path / "run")
    assert line["step"] == 1
    assert np.isfinite(line["loss"])
