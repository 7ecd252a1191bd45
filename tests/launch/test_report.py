import dataclasses
import hashlib
import json
import re
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops_jax import artifacts
from crops_jax.errors import InputError
from crops_jax.retrieval.intervals import paired_difference
from crops_jax.text import words
from data.tables import write_table
from launch import evaluate as evaluation
from launch.report import RunReportArguments, drawn_points, report, write_report
from launch.run_report.headline import headline
from launch.run_report.sources import read_sources
from tests.pages import browser, overflow, place_of, text_of, unclosed

ADJECTIVES = ["red", "old", "quiet", "wide", "warm", "plain", "tall", "soft"]
THINGS = ["kettle", "ladder", "violin", "carpet", "lantern", "bicycle", "mirror", "saddle", "anchor", "basket"]
# Escaping is tested wherever a title or query is shown.
ARMS = ("search_log", "cross_perspective")
HOSTILE = "<script>alert(1)</script> & kettle"


class HashingEncoder:
    """A bag of words in `dim` buckets: the fewer, the worse."""

    def __init__(self, dim):
        self.dim = dim
        self.fingerprint = f"hashing {dim}"

    def encode(self, texts, *, tower, dim=None, batch_tokens=None, progress=False):
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dim] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def make_split(path):
    path.mkdir()
    titles = [f"{adjective} {thing} number {n}" for adjective in ADJECTIVES for thing in THINGS for n in range(3)]
    documents = [{"doc_id": f"d{row:03}", "title": title} for row, title in enumerate([HOSTILE, *titles])]
    rows = {
        "documents": documents,
        "searches": [
            {
                "search_id": f"s{row}",
                "user_id": f"u{row % 7}",
                "query": f"{ADJECTIVES[row % 8]} {THINGS[row % 10]}",
                "time": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=row),
            }
            for row in range(30)
        ],
        "candidates": [
            {"search_id": f"s{row}", "doc_id": f"d{row * 7 % 200:03}", "stage": "shown", "clicked": row % 2 == 0}
            for row in range(30)
        ],
    }
    pairs = [(row["title"].rsplit(" ", 2)[0].lower(), row["doc_id"]) for row in documents[1:160]]
    rows["test_clicks"] = [{"query": query, "doc_id": doc} for query, doc in [*pairs, (HOSTILE.lower(), "d000")]]
    rows["test_reformulations"] = [
        {"query": f"{query.split()[1]} for sale", "doc_id": doc} for query, doc in dict.fromkeys(pairs[:90])
    ]
    rows["judgements"] = [
        {"query": query, "doc_id": doc, "grade": float(place % 4), "split": "test"}
        for place, (query, doc) in enumerate(pairs)
    ]
    for name, table in rows.items():
        write_table(path, name, pa.Table.from_pylist(table))
    artifacts.write_manifest(
        path, artifacts.new_manifest(program="data.simulate", kind="logs", arguments={}, inputs={})
    )


def make_labels(path, split, sources):
    path.mkdir(parents=True)
    rows = [
        {"query": "red kettle", "doc_id": f"d{row:03}", "level": level, "source": source}
        for row, (source, level) in enumerate(sources)
    ]
    schema = pa.schema([("query", pa.string()), ("doc_id", pa.string()), ("level", pa.int8()), ("source", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path / "labels.parquet")
    sweep = [{"alpha": alpha / 10, "passing": 10 - alpha, "share": 0.1} for alpha in range(3, 10)]
    (path / "alpha_sweep.json").write_text(json.dumps({"alpha": 0.6, "query_level": sweep}))
    content = artifacts.content_fingerprint(path)
    made = artifacts.new_manifest(
        program="data.mine", kind="labels", arguments={}, inputs={"logs": split}, content=content
    )
    artifacts.write_manifest(path, made)


def make_run(path, labels, *, loss):
    path.mkdir(parents=True)
    (path / "config.json").write_text(
        json.dumps({"training": {"steps": 400, "epochs": 1.0}, "data": {"queries_per_batch": 64}})
    )
    lines = [
        {
            "step": step,
            "loss": loss * np.exp(-step / 150) + 0.2,
            "temperature": 0.05,
            "learning_rate": 1e-3,
            "examples_per_second": 900.0,
            "recall_in_batch_level_5": 1 - np.exp(-step / 50),
            **({"dev_recall_at_10": 1 - np.exp(-step / 100)} if step % 100 == 0 else {}),
        }
        for step in range(10, 401, 10)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "goodput.jsonl").write_text(json.dumps({"step": 400, "seconds": 10.0, "compute_seconds": 9.0}) + "\n")
    made = artifacts.new_manifest(program="launch.train", kind="run", arguments={}, inputs={"labels": labels})
    artifacts.write_manifest(path, made)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work directory as launch.pipeline leaves it, with two arms."""
    work = tmp_path_factory.mktemp("pipeline") / "work"
    work.mkdir()
    make_split(work / "split")
    log = [("search_log", 4)] * 20 + [("shown_not_clicked", 3)] * 40 + [("ranked_not_shown", 2)] * 60
    cross = [("query_level", 5)] * 8 + [("system_level", 4)] * 5 + log
    with pytest.MonkeyPatch.context() as patch:
        for arm, dim, sources in (("search_log", 8, log), ("cross_perspective", 64, cross)):
            make_labels(work / arm / "labels", work / "split", sources)
            make_run(work / arm / "run", work / arm / "labels", loss=2.0)
            patch.setattr(evaluation, "open_encoder", lambda _, dim=dim: HashingEncoder(dim))
            evaluation.evaluate(
                evaluation.EvaluateArguments(
                    run=str(work / arm / "run"),
                    logs=str(work / "split"),
                    output=str(work / arm / "evaluation"),
                    name=arm,
                    bootstrap_samples=300,
                )
            )
    artifacts.write_manifest(
        work,
        artifacts.new_manifest(
            program="launch.pipeline", kind="work", arguments={"arms": ",".join(ARMS)}, inputs={"logs": work / "split"}
        ),
    )
    return work


def parts(work):
    return [
        str(work / arm / part)
        for arm in ("search_log", "cross_perspective")
        for part in ("labels", "run", "evaluation")
    ]


@pytest.fixture(scope="module")
def page(work):
    output = work.parent / "report.html"
    outcome = write_report(parts(work), str(output))
    return outcome, output.read_text()


def headline_of(work):
    """The headline figures of the page, from the metrics.json of both arms."""
    found = [json.loads((work / arm / "evaluation" / "metrics.json").read_text()) for arm in ARMS]
    systems = [metrics["systems"][system] for metrics in found for system in ("encoder", "bm25")]
    return headline(found[0]["documents"], systems)


def test_the_outcome_has_the_headline_figures_of_each_arm_and_those_that_do_not_depend_on_the_corpus(page, work):
    outcome, _ = page
    assert list(outcome["metrics"]) == ["search_log", "cross_perspective", "bm25"]
    metrics = json.loads((work / "cross_perspective" / "evaluation" / "metrics.json").read_text())
    encoder = metrics["systems"]["encoder"]
    unseen = metrics["subsets"]["encoder"]["unseen_pairs"]
    assert metrics["documents"] == 241
    # Every system finds nearly all judged documents among 100 of 241, so K is 10.
    assert min(found["judgements"]["recall@100"]["value"] for found in metrics["systems"].values()) > 0.95
    assert outcome["metrics"]["cross_perspective"] == {
        "Judged Recall@10": encoder["judgements"]["recall@10"]["value"],
        "NDCG@4": encoder["judgements"]["ndcg@4"]["value"],
        "CT Recall@10, unseen pairs": unseen["ct"]["recall@10"]["value"],
        "CT Recall@10": encoder["ct"]["recall@10"]["value"],
        "QR Recall@10": encoder["qr"]["recall@10"]["value"],
        "CT Recall@100": encoder["ct"]["recall@100"]["value"],
        "QR Recall@100": encoder["qr"]["recall@100"]["value"],
    }


def test_the_page_begins_with_the_verdict_and_the_facts(page, work):
    outcome, html = page
    text = text_of(html)
    (verdict,) = outcome["verdicts"]
    assert verdict.startswith("Of the 2 encoders, cross_perspective has the highest Judged Recall@10; it is ")
    facts = "Data 241 documents; test queries: 54 ct, 10 qr, 53 judgements; log tables "
    order = [verdict, facts, "Before reading", "Mean over queries", "What to do next", "Details"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert f"python -m launch.search --run {work}/cross_perspective/run" in text


def test_a_note_that_one_evaluation_has_names_it(page):
    text = text_of(page[1])
    assert "search_log: Documents with equal scores are ranked by their ids" in text
    assert text.count("The logs are those of a simulated world") == 1


def test_the_details_tell_the_best_encoder_against_bm25(page):
    outcome, html = page
    text = text_of(html)
    assert len(outcome["against_bm25"]) >= 2
    assert outcome["against_bm25"][0].startswith("Judged Recall@10: the best encoder, cross_perspective (")
    assert outcome["against_bm25"][1].startswith("NDCG@4: the best encoder, cross_perspective (")
    for sentence in outcome["against_bm25"]:
        assert text.index(sentence) > text.index("Details")


def test_unseen_pairs_stand_among_the_paired_differences(page):
    outcome, _ = page
    labels = [row["label"] for row in outcome["differences"] if row["order"] == 0]
    assert labels[:3] == ["Judged Recall@10", "NDCG@4", "CT Recall@10, unseen pairs"]


def test_two_evaluations_of_one_run_are_called_so(work, tmp_path):
    copy = tmp_path / "twin"
    shutil.copytree(work / "search_log" / "evaluation", copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").write_text(json.dumps({**metrics, "name": "twin"}))
    outcome = write_report([str(work / "search_log" / "evaluation"), str(copy)], str(tmp_path / "r.html"))
    assert outcome["shared_runs"] == {"twin": "search_log"}
    said = "twin and search_log are evaluations of one run, so their figures cannot differ."
    assert said in text_of((tmp_path / "r.html").read_text())


def test_no_run_of_different_label_tables_is_called_shared(page):
    outcome, html = page
    assert outcome["shared_runs"] == {}
    assert "evaluations of one run" not in text_of(html)


def test_better_is_said_only_where_the_interval_excludes_zero(page):
    outcome, html = page
    assert outcome["differences"]
    for row in outcome["differences"]:
        verdict = "better" if row["low"] > 0 else "worse" if row["high"] < 0 else "no difference shown"
        assert row["verdict"] == verdict
    assert {(row["system"], row["against"]) for row in outcome["differences"]} == {
        ("cross_perspective", "search_log"),
        ("search_log", "bm25"),
        ("cross_perspective", "bm25"),
    }
    assert "cross_perspective against search_log" in text_of(html)


def test_the_page_says_what_its_figures_mean_and_where_they_come_from(page):
    text = text_of(page[1])
    for said in (
        "CT Recall@100",
        "QR Recall@100",
        "NDCG@4",
        "simulated world",
        "random order",
        "Index against exact search",
        "Should be found",
        "Rephras".lower(),
        "the feed showed",
        "5 rephrased query",
        "Training loss",
        "Recall@10 on the dev slice",
        "Recall in the batch, level 5 rephrased query",
        "not in the log",
    ):
        assert said in text, said


def test_each_headline_figure_stands_with_its_number_of_queries(page, work):
    metrics = json.loads((work / "search_log" / "evaluation" / "metrics.json").read_text())
    for one in headline_of(work):
        figure = one.of(metrics["systems"]["encoder"], metrics["subsets"]["encoder"])
        assert figure["queries"] > 0
        assert f"{one.label} {figure['queries']} queries" in text_of(page[1])


def test_documents_of_the_feed_are_shown_by_title_and_as_what_they_are(page):
    text = text_of(page[1])
    level = text[text.index("System level: documents") : text.index("Judgements: documents")]
    assert "Labelled in training" in level
    assert "Should be found" not in level
    assert not re.search(r"\bd\d\d\d\b", level)


def test_ranks_are_named_in_the_order_of_the_table(page):
    assert re.search(r"\(search_log \S+, cross_perspective \S+, bm25 \S+\)", text_of(page[1]))
    assert not re.search(r"bm25 \S+, cross_perspective", text_of(page[1]))


def difference_on_unseen_pairs(evaluation, test, metric):
    """The paired difference of fusion_rrf to the encoder, from the values of every query."""
    rows = pq.read_table(evaluation / "per_query.parquet").to_pylist()
    values = {
        (row["system"], row["query"]): row["value"]
        for row in rows
        if (row["test"], row["metric"], row["pairs"]) == (test, metric, "unseen")
    }
    queries = sorted(query for system, query in values if system == "encoder")
    fused, alone = ([values[system, query] for query in queries] for system in ("fusion_rrf", "encoder"))
    return paired_difference(fused, alone, samples=2000).as_json()


def test_systems_on_top_of_the_encoder_stand_in_a_table_of_their_own(page, work):
    outcome, html = page
    assert {arm: list(systems) for arm, systems in outcome["combinations"].items()} == {
        "search_log": ["fusion_rrf"],
        "cross_perspective": ["fusion_rrf"],
    }
    text = text_of(html)
    part = text[text.index("On top of the encoder") : text.index("Index against exact search")]
    for arm in ("search_log", "cross_perspective"):
        metrics = json.loads((work / arm / "evaluation" / "metrics.json").read_text())
        own = part[part.index(f"{arm} with BM25, by reciprocal rank fusion") :]
        for one in headline_of(work):
            figure = one.of(metrics["systems"]["fusion_rrf"], metrics["subsets"]["fusion_rrf"])
            if one.pairs == "all":
                difference = metrics["differences"]["fusion_rrf - encoder"][one.test][one.metric]
            else:
                difference = difference_on_unseen_pairs(work / arm / "evaluation", one.test, one.metric)
            verdict = (
                "better" if difference["low"] > 0 else "worse" if difference["high"] < 0 else "no difference shown"
            )
            assert outcome["combinations"][arm]["fusion_rrf"][one.label] == figure["value"]
            assert f"{figure['value']:.3f} {figure['low']:.3f} to {figure['high']:.3f} {verdict}: " in own


def test_an_evaluation_without_combined_systems_is_shown_without_them(work, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(work / "search_log" / "evaluation", copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    for group in ("systems", "subsets"):
        del metrics[group]["fusion_rrf"]
    del metrics["fusion"]
    (copy / "metrics.json").write_text(json.dumps(metrics))
    outcome = write_report([str(copy)], str(tmp_path / "r.html"))
    assert outcome["combinations"] == {}
    assert "On top of the encoder" not in (tmp_path / "r.html").read_text()


def test_a_reranked_system_says_what_reorders_it_and_where_it_is_circular(work, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(work / "search_log" / "evaluation", copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["systems"]["reranked"] = metrics["systems"]["fusion_rrf"]
    metrics["differences"]["reranked - encoder"] = metrics["differences"]["fusion_rrf - encoder"]
    described = "its first 100 documents in the order of the relevance discriminator (theta, cross encoder)"
    for chose_qr, circular in ((True, "; QR is circular, see the notes"), (False, "")):
        metrics["reranking"] = {"depth": 100, "kind": "cross_encoder", "chose_qr": chose_qr}
        (copy / "metrics.json").write_text(json.dumps(metrics))
        outcome = write_report([str(copy)], str(tmp_path / "r.html"), overwrite=True)
        assert list(outcome["combinations"]["search_log"]) == ["fusion_rrf", "reranked"]
        figure = metrics["systems"]["reranked"]["ct"]["recall@100"]["value"]
        assert f"{described}{circular} {figure:.3f}" in text_of((tmp_path / "r.html").read_text())


def test_the_page_is_self_contained_and_its_markup_is_closed(page):
    html = page[1]
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", html)
    assert unclosed(html) == []


def test_texts_of_the_logs_are_escaped(page):
    html = page[1]
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_the_manifest_is_inside(page):
    found = re.search(r'<script type="application/json" id="manifest">(.*?)</script>', page[1], re.S)
    manifest = json.loads(found[1])
    assert manifest["program"] == "launch.report"
    assert set(manifest["inputs"]) == {
        f"{kind} {arm}" for kind in ("labels", "run", "evaluation") for arm in ("search_log", "cross_perspective")
    }
    split = manifest["inputs"]["evaluation search_log"]["manifest"]["inputs"]["logs"]
    assert split["manifest"]["program"] == "data.simulate"


def test_a_work_directory_stands_for_what_is_in_it_in_the_order_of_its_arms(work, tmp_path):
    copy = tmp_path / "work"
    shutil.copytree(work, copy)
    shutil.copytree(copy / "search_log" / "labels", copy / "warm_start" / "labels")
    (copy / "command.txt").write_text("python -m launch.pipeline tiny_cpu --logs 'my logs'\n")
    (copy / "steps.json").write_text(json.dumps({"mine": {"outcome": {}, "seconds": 70.0}, "old": {"outcome": {}}}))
    outcome = report(RunReportArguments(paths=(str(copy),), output=str(tmp_path / "r.html")))
    assert list(outcome["metrics"]) == ["search_log", "cross_perspective", "bm25"]
    text = text_of((tmp_path / "r.html").read_text())
    assert "Command python -m launch.pipeline tiny_cpu --logs &#39;my logs&#39;" in text
    assert "Time of all steps 70 s" in text
    # The pairs of a warm start are no labels of an arm.
    assert "warm_start" not in text


def test_a_run_that_a_work_directory_no_longer_uses_is_not_shown(work, tmp_path):
    copy = tmp_path / "work"
    shutil.copytree(work, copy)
    runs = {source.name for source in read_sources([str(copy)]).runs}
    assert runs == set(ARMS)
    manifest = json.loads((copy / "cross_perspective" / "evaluation" / "manifest.json").read_text())
    of_log = json.loads((copy / "search_log" / "evaluation" / "manifest.json").read_text())
    manifest["inputs"]["run"] = of_log["inputs"]["run"]
    (copy / "cross_perspective" / "evaluation" / "manifest.json").write_text(json.dumps(manifest))
    assert [source.name for source in read_sources([str(copy)]).runs] == ["search_log"]


def test_every_document_with_a_tick_is_listed(page, work):
    """The lists of examples show five documents at once, and the others when they are opened."""
    relevant = pq.read_table(work / "search_log" / "evaluation" / "relevant.parquet").to_pylist()
    html = page[1]
    judged = html[html.index("Judgements: documents that are judged relevant") :]
    for article in re.findall(r'<article class="example">(.*?)</article>', judged, re.S):
        query = text_of(re.search(r"<h4>(.*?)</h4>", article, re.S)[1])
        listed = text_of(article[: article.index('<div class="columns">')])
        titles = [row["title"] for row in relevant if (row["test"], row["query"]) == ("judgements", query)]
        assert titles
        assert all(title in listed for title in titles)
        ticked = re.findall(r'<span class="hit">(.*?)</span>', article)
        assert all(title in listed for title in ticked)


def test_a_last_window_of_one_step_is_not_drawn(work):
    run = read_sources([str(work / "search_log" / "run")]).runs[0]
    (*_, before, last) = run.lines
    short = {**last, "step": before["step"] + 1}
    lines = [*run.lines[:-1], short]
    drawn = [step for step, _ in drawn_points(dataclasses.replace(run, lines=lines), "recall_in_batch_level_5")]
    assert drawn == [line["step"] for line in run.lines[:-1]]
    whole = [step for step, _ in drawn_points(run, "recall_in_batch_level_5")]
    assert whole[-1] == last["step"]
    of_dev = [step for step, _ in drawn_points(dataclasses.replace(run, lines=lines), "dev_recall_at_10")]
    assert of_dev[-1] == short["step"]


def test_a_run_alone_makes_a_page(work, tmp_path):
    outcome = write_report([str(work / "search_log" / "run")], str(tmp_path / "r.html"))
    assert outcome["metrics"] == {}
    assert "No evaluation" in (tmp_path / "r.html").read_text()


def test_a_page_is_replaced_only_when_told_and_only_ours(work, tmp_path):
    output = tmp_path / "r.html"
    run = [str(work / "search_log" / "run")]
    write_report(run, str(output))
    with pytest.raises(InputError, match="--overwrite"):
        write_report(run, str(output))
    first = output.read_bytes()
    write_report(run, str(output), overwrite=True)
    assert output.read_bytes() == first
    output.write_text("somebody's own page")
    with pytest.raises(InputError, match="not a page of crops_jax"):
        write_report(run, str(output), overwrite=True)
    with pytest.raises(InputError, match="is a directory"):
        write_report(run, str(tmp_path))


def test_what_is_no_input_is_refused(work, tmp_path):
    with pytest.raises(InputError, match="holds logs"):
        write_report([str(work / "split")], str(tmp_path / "r.html"))
    with pytest.raises(InputError, match="no such directory"):
        write_report([str(tmp_path / "nothing")], str(tmp_path / "r.html"))
    copy = tmp_path / "copy"
    shutil.copytree(work / "search_log" / "evaluation", copy)
    with pytest.raises(InputError, match="two systems are called search_log"):
        write_report([str(work / "search_log" / "evaluation"), str(copy)], str(tmp_path / "r.html"))
    metrics = json.loads((copy / "metrics.json").read_text())
    del metrics["notes"]
    (copy / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(InputError, match=r"metrics.json: field notes is missing; evaluate again"):
        write_report([str(copy)], str(tmp_path / "r.html"))


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows_in_a_browser(page, tmp_path, width):
    assert overflow(page[1], width=width, folder=tmp_path) == (0, 0)


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium here")
def test_the_details_begin_within_four_screens_of_a_phone(page, tmp_path):
    top = place_of(page[1], "h3", "Details", width=390, folder=tmp_path)
    assert 844 < top < 4 * 844
