import dataclasses
import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts
from crops_jax.config import Config, EncoderConfig
from crops_jax.discriminator import LexicalDiscriminator
from crops_jax.embeddings import Layout, write_shard
from crops_jax.errors import InputError
from crops_jax.retrieval.metrics import ndcg_at_k
from crops_jax.text import words
from data.mining.relevance.theta import Fitted, Theta, save_theta
from data.tables import write_table
from data.tables.truth import write_truth
from launch import evaluate as module
from launch.evaluate import EvaluateArguments, evaluate
from launch.evaluation import lexical_search
from launch.evaluation.lexical_search import GRID
from tests.crops_jax.models.test_poly_encoder import reference_score

COLOURS = ["red", "blue", "green", "grey"]
THINGS = ["car", "boat", "lamp", "chair", "kite"]
DOCS = {f"d{i}": f"{colour} {thing}" for i, (colour, thing) in enumerate((c, t) for c in COLOURS for t in THINGS)}
ID = {title: doc_id for doc_id, title in DOCS.items()}


class HashingEncoder:
    """A bag of words, hashed: stands in for a trained encoder."""

    dim = 64
    fingerprint = "hashing"

    def encode(self, texts, *, tower, dim=None, batch_tokens=None, progress=False):
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dim] += 1
        vectors = vectors[:, :dim]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def table(directory, name, rows):
    write_table(directory, name, pa.Table.from_pylist(rows))


@pytest.fixture
def split(tmp_path):
    path = tmp_path / "split"
    path.mkdir()
    table(path, "documents", [{"doc_id": doc_id, "title": title} for doc_id, title in DOCS.items()])
    time = datetime(2026, 1, 1, tzinfo=UTC)
    asked = ["Red  CAR", "blue boat", "chair"]
    table(
        path,
        "searches",
        [{"search_id": f"s{i}", "user_id": "u", "query": query, "time": time} for i, query in enumerate(asked)],
    )
    shown = {"stage": "shown", "liked": None}
    table(
        path,
        "candidates",
        [
            {"search_id": "s0", "doc_id": ID["red car"], "clicked": True, **shown},
            {"search_id": "s1", "doc_id": ID["blue boat"], "clicked": False, **shown},
            {"search_id": "s2", "doc_id": ID["red chair"], "clicked": None, **shown | {"liked": True}},
        ],
    )
    clicks = [
        ("red car", ID["red car"]),
        ("red car", ID["red boat"]),
        ("green lamp", ID["green lamp"]),
        ("green lamp", "gone"),
        ("lost query", "gone too"),
    ]
    table(path, "test_clicks", [{"query": query, "doc_id": doc_id} for query, doc_id in clicks])
    judged = [
        ("grey kite", ID["grey kite"], 2.0, "test"),
        ("grey kite", ID["red kite"], 1.0, "test"),
        ("grey kite", ID["blue lamp"], 0.0, "test"),
        ("blue lamp", ID["blue lamp"], 2.0, "train"),
    ]
    table(path, "judgements", [dict(zip(("query", "doc_id", "grade", "split"), row, strict=True)) for row in judged])
    return path


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    monkeypatch.setattr(module, "open_encoder", lambda _: HashingEncoder())


@pytest.fixture
def arguments(split, tmp_path):
    (tmp_path / "model").mkdir()
    return EvaluateArguments(
        run=str(tmp_path / "model"), logs=str(split), output=str(tmp_path / "evaluation"), bootstrap_samples=200
    )


def metrics_of(arguments):
    evaluate(arguments)
    return json.loads((module.Path(arguments.output) / "metrics.json").read_text())


def test_every_figure_has_its_queries_and_interval(arguments):
    metrics = metrics_of(arguments)
    figure = metrics["systems"]["encoder"]["ct"]["recall@100"]
    assert figure == {"value": 1.0, "low": 1.0, "high": 1.0, "queries": 2}
    assert set(metrics["systems"]["bm25"]["ct"]) == {"recall@10", "recall@100", "ndcg@10"}
    assert set(metrics["systems"]["encoder"]["judgements"]) == {
        *("recall@10", "recall@100", "ndcg@4", "ndcg@10", "judged@4"),
    }
    assert metrics["name"] == "model"
    assert metrics["random"] == {"recall@10": 0.5, "recall@100": 1.0}
    assert metrics["differences"]["encoder - bm25"]["ct"]["recall@10"]["queries"] == 2


def test_figures_that_equal_scores_decide_are_told_in_the_outcome(arguments, monkeypatch, capsys):
    class Collapsed(HashingEncoder):
        def encode(self, *texts, **options):
            vectors = super().encode(*texts, **options)
            return np.full_like(vectors, vectors.shape[1] ** -0.5)

    monkeypatch.setattr(module, "open_encoder", lambda _: Collapsed())
    note = evaluate(arguments)["decided_by_ids"][0]
    assert note.startswith("Documents with equal scores are ranked by their ids, which decides figures of encoder.")
    assert "ct recall@10 0.000 to 1.000" in note
    assert f"warning: {note}" in " ".join(capsys.readouterr().err.split())


def test_stored_results_of_bm25_change_nothing(arguments, tmp_path, monkeypatch):
    stored = tmp_path / "bm25.npz"
    evaluate(arguments)
    outputs = [arguments.output]
    monkeypatch.setattr(module, "search_bm25", None)
    for name in ("writes", "reads"):
        outputs.append(str(tmp_path / name))
        evaluate(dataclasses.replace(arguments, output=outputs[-1], bm25_results=str(stored)))
        monkeypatch.setattr(lexical_search, "search_bm25", None)
    assert len({artifacts.fingerprint(output) for output in outputs}) == 1
    assert len({json.dumps(artifacts.read_manifest(output)) for output in outputs}) == 1


def test_a_missing_table_is_said(arguments):
    metrics = metrics_of(arguments)
    assert metrics["tests"]["qr"] == {"absent": "there is no table test_reformulations"}
    assert "qr" not in metrics["systems"]["encoder"]


def test_unknown_documents_and_queries_without_a_known_one_are_counted(arguments):
    assert metrics_of(arguments)["tests"]["ct"] == {
        "queries": 2,
        "relevant_pairs": 3,
        "seen_queries": 1,
        "unseen_queries": 1,
        "seen_pairs": 1,
        "unseen_pairs": 2,
        "unknown_documents": 2,
        "unknown_pairs": 2,
        "queries_without_known_relevant": 1,
    }


def test_seen_queries_and_pairs_are_told_apart(arguments):
    subsets = metrics_of(arguments)["subsets"]["encoder"]
    assert subsets["seen_queries"]["ct"]["recall@10"]["queries"] == 1
    assert subsets["unseen_queries"]["ct"]["recall@10"]["queries"] == 1
    assert subsets["seen_pairs"]["ct"]["ndcg@10"]["value"] == 1.0
    assert subsets["unseen_pairs"]["ct"]["recall@10"]["queries"] == 2


def test_judgements_are_those_of_the_test_split_alone_with_linear_gains(arguments):
    metrics = metrics_of(arguments)
    assert metrics["tests"]["judgements"]["queries"] == 1
    found = pq.read_table(f"{arguments.output}/retrieved.parquet").to_pylist()
    ranking = [row["doc_id"] for row in found if row["test"] == "judgements" and row["system"] == "encoder"]
    grades = {ID["grey kite"]: 2.0, ID["red kite"]: 1.0, ID["blue lamp"]: 0.0}
    value = metrics["systems"]["encoder"]["judgements"]["ndcg@4"]["value"]
    assert value == pytest.approx(ndcg_at_k(ranking, grades, k=4))


def test_a_relevant_grade_changes_what_is_relevant(arguments):
    metrics = metrics_of(dataclasses.replace(arguments, relevant_grade=2.0))
    assert metrics["tests"]["judgements"]["relevant_pairs"] == 1


def test_values_by_query_lie_beside_the_figures(arguments):
    metrics = metrics_of(arguments)
    rows = pq.read_table(f"{arguments.output}/per_query.parquet").to_pylist()
    chosen = [
        row["value"]
        for row in rows
        if (row["system"], row["test"], row["pairs"], row["metric"]) == ("bm25", "ct", "all", "ndcg@10")
    ]
    assert np.mean(chosen) == pytest.approx(metrics["systems"]["bm25"]["ct"]["ndcg@10"]["value"])
    assert {row["query"]: row["seen"] for row in rows if row["test"] == "ct"} == {"red car": True, "green lamp": False}


def test_what_the_page_needs_is_kept(arguments):
    evaluate(arguments)
    relevant = pq.read_table(f"{arguments.output}/relevant.parquet").to_pylist()
    red = [row for row in relevant if row["query"] == "red car"]
    assert {row["title"]: row["seen"] for row in red} == {"red car": True, "red boat": False}
    assert next(row for row in red if row["title"] == "red car")["encoder_rank"] == 1
    assert {row["perspective"] for row in red} == {"search_log"}
    first = pq.read_table(f"{arguments.output}/retrieved.parquet").to_pylist()[0]
    assert first["rank"] == 1
    assert first["title"] in DOCS.values()


def test_the_gap_to_exact_search_is_measured(arguments):
    index = metrics_of(arguments)["index"]
    assert index["recall@10"] == {"value": 1.0, "low": 1.0, "high": 1.0, "queries": 3}
    assert index["minus_exact"]["ct"]["recall@10"]["value"] == 0.0
    assert (module.Path(arguments.output) / "index" / "documents.parquet").is_file()


def test_the_order_of_the_corpus_changes_nothing(arguments, split):
    first = metrics_of(arguments)
    rows = pq.read_table(split / "documents.parquet").to_pylist()
    table(split, "documents", rows[::-1])
    second = metrics_of(dataclasses.replace(arguments, overwrite=True))
    assert first["systems"] == second["systems"]


def test_embeddings_of_the_same_encoder_and_documents_are_used(arguments, split, tmp_path, monkeypatch):
    wanted = metrics_of(arguments)
    ids = sorted(DOCS, reverse=True)
    embeddings = tmp_path / "embeddings"
    embeddings.mkdir()
    layout = Layout(rows=len(ids), dim=64, shard_rows=8, dtype="bfloat16")

    def write(texts, **extra):
        manifest = artifacts.new_manifest(
            program="launch.embed",
            kind="embeddings",
            arguments={"tower": "document"},
            inputs={"texts": texts},
            layout=layout._asdict(),
            **extra,
        )
        artifacts.write_manifest(embeddings, manifest)

    vectors = HashingEncoder().encode([DOCS[doc_id] for doc_id in ids], tower="document")
    for shard in range(layout.shards):
        first, last = layout.bounds(shard)
        write_shard(embeddings, layout, shard, ids=ids[first:last], vectors=vectors[first:last])
    write(split / "documents.parquet", encoder="hashing")
    given = dataclasses.replace(arguments, document_embeddings=str(embeddings), output=str(tmp_path / "other"))
    found = metrics_of(given)
    assert found["systems"] == wanted["systems"]
    assert [each["run"]["document_vectors"] for each in (wanted, found)] == ["float32", "bfloat16"]
    with pytest.raises(InputError, match="vectors of 64 components, and --dim is 32"):
        evaluate(dataclasses.replace(given, overwrite=True, dim=32))

    write(split / "documents.parquet", encoder="another")
    with pytest.raises(InputError, match="another encoder"):
        evaluate(dataclasses.replace(given, overwrite=True))
    write(split / "searches.parquet", encoder="hashing")
    with pytest.raises(InputError, match="other texts"):
        evaluate(dataclasses.replace(given, overwrite=True))


def manifest(directory, *, kind, program, inputs, **arguments):
    directory.mkdir(exist_ok=True)
    made = artifacts.new_manifest(program=program, kind=kind, arguments=arguments, inputs=inputs)
    artifacts.write_manifest(directory, made)


@pytest.mark.parametrize(
    ("mined_from", "until", "trained"),
    [("split", None, True), ("other", None, False), ("logs", "2026-02-01", False), ("logs", "2026-03-01", None)],
)
def test_a_run_that_saw_the_test_period_is_refused(arguments, split, tmp_path, mined_from, until, trained):
    manifest(tmp_path / "logs", kind="logs", program="data.simulate", inputs={})
    manifest(tmp_path / "other", kind="logs", program="data.convert", inputs={})
    manifest(split, kind="logs", program="data.hold_out", inputs={"logs": tmp_path / "logs"}, from_="2026-02-01")
    manifest(
        tmp_path / "labels", kind="labels", program="data.mine", inputs={"logs": tmp_path / mined_from}, until=until
    )
    manifest(tmp_path / "records", kind="records", program="w", inputs={"labels": tmp_path / "labels"})
    manifest(tmp_path / "model", kind="run", program="launch.train", inputs={"records": tmp_path / "records"})
    if trained is None:
        with pytest.raises(InputError, match="seen the answers"):
            evaluate(arguments)
        return
    metrics = metrics_of(arguments)
    assert metrics["run"]["trained_on_this_split"] is trained
    assert any("simulated world" in note for note in metrics["notes"])


@pytest.mark.parametrize(
    ("paired_from", "until", "trained"),
    [
        ("split", None, True),
        ("split", "2026-02-01", True),
        ("other", None, False),
        ("logs", "2026-02-01", False),
        ("logs", None, None),
    ],
)
def test_pairs_of_the_catalogue_are_known_by_the_logs_that_they_were_made_from(
    arguments, split, tmp_path, paired_from, until, trained
):
    manifest(tmp_path / "logs", kind="logs", program="data.simulate", inputs={})
    manifest(tmp_path / "other", kind="logs", program="data.convert", inputs={})
    manifest(split, kind="logs", program="data.hold_out", inputs={"logs": tmp_path / "logs"}, from_="2026-02-01")
    pairs = {"kind": "logs", "program": "data.pretraining_pairs", "inputs": {"logs": tmp_path / paired_from}}
    manifest(tmp_path / "pairs", **pairs, until=until)
    for name, logs, run in (("warm", "pairs", "warm_run"), ("arm", "split", "model")):
        labels, records = tmp_path / f"{name}_labels", tmp_path / f"{name}_records"
        manifest(labels, kind="labels", program="data.mine", inputs={"logs": tmp_path / logs})
        manifest(records, kind="records", program="w", inputs={"labels": labels})
        start = {"initial_run": tmp_path / "warm_run"} if name == "arm" else {}
        manifest(tmp_path / run, kind="run", program="launch.train", inputs={"records": records, **start})
    if trained is None:
        with pytest.raises(InputError, match="seen the answers"):
            evaluate(arguments)
        return
    assert metrics_of(arguments)["run"]["trained_on_this_split"] is trained


def add_judgements(split, rows):
    judged = pq.read_table(split / "judgements.parquet").to_pylist()
    rows = [dict(zip(("query", "doc_id", "grade", "split"), row, strict=True)) for row in rows]
    table(split, "judgements", [*judged, *rows])


def test_the_fusions_are_systems_with_all_that_the_others_have(arguments, split):
    add_judgements(split, [("blue kite", ID["blue kite"], 2.0, "dev"), ("old lamp", ID["red lamp"], 1.0, "dev")])
    metrics = metrics_of(arguments)
    assert list(metrics["systems"]) == ["encoder", "bm25", "fusion_rrf", "fusion_weighted"]
    for name in ("fusion_rrf", "fusion_weighted"):
        for group in ("systems", "subsets"):
            assert metrics[group][name].keys() == metrics[group]["encoder"].keys()
        figure = metrics["systems"][name]["ct"]["recall@10"]
        assert figure.keys() == {"value", "low", "high", "queries"}
        assert figure["queries"] == 2
        for base in ("encoder", "bm25"):
            difference = metrics["differences"][f"{name} - {base}"]["ct"]["recall@10"]
            apart = figure["value"] - metrics["systems"][base]["ct"]["recall@10"]["value"]
            assert difference["value"] == pytest.approx(apart)
    rows = pq.read_table(f"{arguments.output}/per_query.parquet").to_pylist()
    assert {row["system"] for row in rows} == set(metrics["systems"])
    assert metrics["fusion"]["weighted"]["queries"] == 2


def test_fused_lists_are_those_of_the_definition(arguments):
    evaluate(arguments)
    doc_ids = list(DOCS)
    documents = HashingEncoder().encode(list(DOCS.values()), tower="document")
    scores = documents @ HashingEncoder().encode(["green lamp"], tower="query")[0]
    position = {doc_id: place for place, doc_id in enumerate(sorted(doc_ids))}
    dense = sorted(doc_ids, key=lambda doc: (-scores[doc_ids.index(doc)], position[doc]))
    # BM25: both words, then one of them; every title has two words, a colour of 5 titles and a thing of 4.
    lexical = [ID["green lamp"], *sorted((ID[f"{colour} lamp"] for colour in COLOURS), key=position.get)]
    lexical += sorted((ID[f"green {thing}"] for thing in THINGS), key=position.get)
    lists = [dense, list(dict.fromkeys(lexical))]
    sums = {doc: sum(1 / (61 + one.index(doc)) for one in lists if doc in one) for doc in doc_ids}
    wanted = sorted(doc_ids, key=lambda doc: (-np.float32(sums[doc]), position[doc]))[:10]
    rows = pq.read_table(f"{arguments.output}/retrieved.parquet").to_pylist()
    chosen = [row for row in rows if row["system"] == "fusion_rrf" and row["query"] == "green lamp"]
    assert [row["doc_id"] for row in chosen] == wanted
    assert [row["score"] for row in chosen] == pytest.approx([sums[doc] for doc in wanted])


def test_the_weight_of_the_fusion_never_sees_the_test(arguments, split):
    add_judgements(split, [("blue kite", ID["blue kite"], 2.0, "dev"), ("old lamp", ID["red lamp"], 1.0, "dev")])
    first = metrics_of(arguments)
    rows = pq.read_table(split / "judgements.parquet").to_pylist()
    others = [doc for doc in DOCS if doc not in {row["doc_id"] for row in rows}]
    changed = [row if row["split"] != "test" else row | {"doc_id": others.pop()} for row in rows]
    table(split, "judgements", changed)
    table(split, "test_clicks", [{"query": "red car", "doc_id": ID["grey boat"]}])
    second = metrics_of(dataclasses.replace(arguments, overwrite=True))
    assert second["systems"]["encoder"] != first["systems"]["encoder"]
    assert second["fusion"] == first["fusion"]
    table(split, "judgements", [row if row["split"] != "dev" else row | {"doc_id": ID["grey car"]} for row in rows])
    third = metrics_of(dataclasses.replace(arguments, overwrite=True))
    assert third["fusion"]["weighted"]["curve"] != first["fusion"]["weighted"]["curve"]


def test_dev_queries_choose_the_parameters_of_bm25(arguments, split):
    add_judgements(split, [("blue kite", ID["blue kite"], 2.0, "dev"), ("old lamp", ID["red lamp"], 1.0, "dev")])
    metrics = metrics_of(dataclasses.replace(arguments, tune_bm25=True, k1=5.0))
    tuned = metrics["bm25"]["tuned"]
    assert (tuned["chosen_on"], tuned["metric"], tuned["queries"]) == ("judgements of split dev", "ndcg@10", 2)
    assert [(one["k1"], one["b"]) for one in tuned["curve"]] == list(GRID)
    best = max(tuned["curve"], key=lambda one: one["value"])
    assert (metrics["bm25"]["k1"], metrics["bm25"]["b"]) == (best["k1"], best["b"])
    fixed = metrics_of(dataclasses.replace(arguments, k1=best["k1"], b=best["b"], overwrite=True))
    assert "tuned" not in fixed["bm25"]
    assert metrics["systems"]["bm25"] == fixed["systems"]["bm25"]


def test_parameters_of_bm25_are_not_chosen_without_dev_queries(arguments):
    with pytest.raises(InputError, match="--tune-bm25 needs dev queries"):
        evaluate(dataclasses.replace(arguments, tune_bm25=True, dev_queries=0))


def test_without_dev_queries_the_weighted_fusion_is_left_out_with_a_reason(arguments, capsys):
    metrics = metrics_of(arguments)
    assert "fusion_weighted" not in metrics["systems"]
    assert "no judgement has split = dev" in metrics["fusion"]["weighted"]["absent"]
    assert "the weighted fusion is left out" in capsys.readouterr().err


@pytest.fixture
def theta_in_split(split):
    pairs = [(query, title) for query in ("red car", "grey kite") for title in DOCS.values()]
    queries, documents = zip(*pairs, strict=True)
    targets = np.array([float(query == title) for query, title in pairs])
    fitted = LexicalDiscriminator.fit(queries, documents, targets, corpus=list(DOCS.values()))
    about = {field.name: None for field in dataclasses.fields(Fitted)} | {"kind": "lexical", "source": "judgements"}
    save_theta(Theta(fitted, about), split / "discriminator")
    return fitted


def test_reranking_is_a_system_and_its_circular_test_is_named(arguments, split, theta_in_split):
    table(split, "test_reformulations", [{"query": "kite", "doc_id": ID["grey kite"]}])
    assert "reranked" not in metrics_of(arguments)["systems"]
    metrics = metrics_of(dataclasses.replace(arguments, rerank=15, overwrite=True))
    assert metrics["reranking"] == {
        "depth": 15,
        "from": "SPLIT/discriminator",
        "kind": "lexical",
        "fitted_on": "judgements",
        "chose_qr": True,
    }
    assert any("its QR figures are circular" in note for note in metrics["notes"])
    assert metrics["systems"]["reranked"]["qr"].keys() == metrics["systems"]["encoder"]["qr"].keys()
    assert {"reranked - encoder", "reranked - bm25"} <= metrics["differences"].keys()
    rows = pq.read_table(f"{arguments.output}/retrieved.parquet").to_pylist()
    for query in ("red car", "kite"):
        chosen = [row for row in rows if row["system"] == "reranked" and row["query"] == query]
        wanted = theta_in_split.score([query] * 10, [row["title"] for row in chosen])
        assert [row["score"] for row in chosen] == pytest.approx(wanted.tolist())
        assert (np.diff(wanted) <= 0).all()


def test_without_the_test_that_is_circular_no_note_is_needed(arguments, theta_in_split):
    metrics = metrics_of(dataclasses.replace(arguments, rerank=5))
    assert "reranked" in metrics["systems"]
    assert not any("circular" in note for note in metrics["notes"] if "system reranked" in note)


def test_a_named_reranker_is_an_input(arguments, split, theta_in_split, tmp_path):
    folder = tmp_path / "theta"
    (split / "discriminator").rename(folder)
    evaluate(dataclasses.replace(arguments, rerank=5, reranker=str(folder)))
    manifest = artifacts.read_manifest(arguments.output)
    assert manifest["inputs"]["reranker"]["fingerprint"] == artifacts.fingerprint(folder)


class HashingPolyEncoder(HashingEncoder):
    """Two codes: one context vector is that of the whole query, the other that of its last word."""

    temperature = 0.2
    config = Config(encoder=EncoderConfig(query_codes=2))

    def contexts(self, queries, *, progress=False):
        last = [query.split()[-1] for query in queries]
        return np.stack([self.encode(texts, tower="query") for texts in (queries, last)], axis=1)


@pytest.fixture
def poly_encoder(tmp_path, monkeypatch):
    """The folder of a run whose Poly-encoder is HashingPolyEncoder."""
    folder = tmp_path / "poly"
    folder.mkdir()
    (folder / "checkpoint").write_text("weights")
    monkeypatch.setattr(module, "open_poly_encoder", lambda _: HashingPolyEncoder())
    return folder


def test_a_poly_encoder_reranks_and_scores_every_document(arguments, poly_encoder):
    metrics = metrics_of(dataclasses.replace(arguments, rerank_by=str(poly_encoder), every_document=True))
    described = metrics["poly_encoder"]
    assert {name: described[name] for name in ("codes", "depth", "documents")} == {
        "codes": 2,
        "depth": 20,
        "documents": 20,
    }
    assert set(described["seconds_per_query"]) == {"contexts", "reranking", "every_document"}
    assert all(seconds > 0 for seconds in described["seconds_per_query"].values())
    rows = pq.read_table(f"{arguments.output}/retrieved.parquet").to_pylist()
    model, titles = HashingPolyEncoder(), list(DOCS.values())
    queries = {row["query"] for row in rows}
    assert len(queries) == 3
    for query in queries:
        [contexts] = model.contexts([query])
        scores = [reference_score(contexts, vector, 0.2) for vector in model.encode(titles, tower="document")]
        for system in ("poly_encoder", "poly_encoder_exhaustive"):
            found = [row for row in rows if row["system"] == system and row["query"] == query]
            assert [row["score"] for row in found] == pytest.approx(sorted(scores, reverse=True)[:10], abs=1e-6)
            of_title = [scores[titles.index(row["title"])] for row in found]
            assert [row["score"] for row in found] == pytest.approx(of_title, abs=1e-6)
    manifest = artifacts.read_manifest(arguments.output)
    assert manifest["inputs"]["rerank_by"]["fingerprint"] == artifacts.fingerprint(poly_encoder)


def test_only_the_list_of_the_encoder_is_reranked_by_default(arguments, poly_encoder):
    metrics = metrics_of(dataclasses.replace(arguments, rerank_by=str(poly_encoder)))
    assert "poly_encoder" in metrics["systems"]
    assert "poly_encoder_exhaustive" not in metrics["systems"]
    assert "every_document" not in metrics["poly_encoder"]["seconds_per_query"]


def test_nothing_to_evaluate_is_refused(arguments, split):
    (split / "test_clicks.parquet").unlink()
    (split / "judgements.parquet").unlink()
    with pytest.raises(InputError, match=r"data\.hold_out"):
        evaluate(arguments)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k1": -1.0},
        {"b": 2.0},
        {"bootstrap_samples": 1},
        {"dev_queries": -1},
        {"rerank": -1},
        {"rerank": 201},
        {"reranker": "folder"},
        {"every_document": True},
    ],
)
def test_impossible_arguments_are_refused(arguments, wrong):
    with pytest.raises(InputError, match="--"):
        evaluate(dataclasses.replace(arguments, **wrong))


def test_an_output_that_exists_is_kept(arguments):
    evaluate(arguments)
    with pytest.raises(InputError, match="overwrite"):
        evaluate(arguments)


def test_hidden_relevant_documents_of_a_generated_world_are_a_test_set(arguments, split):
    truth = [
        ("red car", ID["red car"], 3.0, True),
        ("red car", ID["red chair"], 2.0, False),
        ("red car", ID["grey lamp"], 2.0, False),
        ("never tested", ID["grey lamp"], 2.0, False),
    ]
    names = ("query", "doc_id", "grade", "shown")
    write_truth(split, pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in truth]))
    outcome = evaluate(arguments)
    metrics = json.loads((module.Path(arguments.output) / "metrics.json").read_text())
    assert metrics["tests"]["hidden_relevant"]["queries"] == 1
    assert metrics["tests"]["hidden_relevant"]["relevant_pairs"] == 2
    assert set(metrics["systems"]["bm25"]["hidden_relevant"]) == {"recall@10", "recall@100"}
    # Of "red chair" and "grey lamp", BM25 finds for "red car" the one that shares a word.
    assert metrics["systems"]["bm25"]["hidden_relevant"]["recall@100"]["value"] == 0.5
    assert outcome["metrics"]["bm25"]["hidden_relevant_recall@100"] == 0.5
    rows = pq.read_table(module.Path(arguments.output) / "relevant.parquet").to_pylist()
    assert {row["doc_id"] for row in rows if row["test"] == "hidden_relevant"} == {ID["red chair"], ID["grey lamp"]}


def test_true_grades_of_a_generated_world_are_a_test_set_of_the_judged_queries(arguments, split):
    judged = {row["query"] for row in pq.read_table(split / "judgements.parquet").to_pylist() if row["split"] == "test"}
    query = min(judged)
    truth = [(query, ID["red car"], 3.0, True), ("never judged", ID["grey lamp"], 2.0, False)]
    names = ("query", "doc_id", "grade", "shown")
    write_truth(split, pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in truth]))
    metrics = metrics_of(arguments)
    assert metrics["tests"]["truth"]["queries"] == 1
    assert metrics["tests"]["truth"]["relevant_pairs"] == 1
    assert set(metrics["systems"]["bm25"]["truth"]) == {"ndcg@4", "ndcg@10"}
    rows = pq.read_table(module.Path(arguments.output) / "relevant.parquet").to_pylist()
    assert [(row["query"], row["doc_id"]) for row in rows if row["test"] == "truth"] == [(query, ID["red car"])]


def test_logs_without_a_truth_have_no_test_set_of_it(arguments):
    assert not {"hidden_relevant", "truth"} & metrics_of(arguments)["tests"].keys()
