import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from crops_jax import program
from crops_jax.artifacts import read_manifest
from crops_jax.errors import InputError
from crops_jax.retrieval.metrics import ndcg_at_k
from crops_jax.text import normalise_query
from data.simulate import SimulateArguments, simulate, start_of_test
from data.tables import SCHEMAS, open_logs
from data.tables.truth import read_truth
from data.world.constants import WorldConstants
from data.world.engine import present_engine
from data.world.logs.judges import split_of
from data.world.logs.language_model import write_knowledge
from data.world.presets import PRESETS
from data.world.retrievers import Stock
from data.world.world import draw_world
from tests.paths import ROOT

SMALL = WorldConstants(documents=300, queries=80, users=60, days=2, topics=20)


def run(folder: Path, **arguments) -> dict:
    return simulate(SimulateArguments(output=str(folder), **{"world": SMALL, **arguments}))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "logs"
    return folder, run(folder)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_same_seed_gives_the_same_bytes_and_another_others(simulated, tmp_path):
    folder, _ = simulated
    run(tmp_path / "again")
    run(tmp_path / "other", seed=1)
    assert contents(tmp_path / "again") == contents(folder)
    other = contents(tmp_path / "other")
    assert other.keys() == contents(folder).keys()
    assert not set(other.values()) & set(contents(folder).values())


def test_the_same_seed_gives_the_same_bytes_with_all_channels_and_entities(tmp_path):
    sizes = {"documents": 400, "queries": 120, "users": 80, "days": 2, "topics": 10, "initial_clicks": 300}
    world = dataclasses.replace(PRESETS["large"], **sizes)
    outcomes = [run(tmp_path / name, world=world) for name in ("one", "two")]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert "truth/pairs.parquet" in contents(tmp_path / "one")
    assert outcomes[0]["room"] == outcomes[1]["room"]
    judged = open_logs(tmp_path / "one").read("judgements")["query"].unique()
    assert len(judged) == round(world.judged_query_share * 120)


def test_room_and_truth_are_in_the_outcome_and_the_manifest(simulated):
    folder, outcome = simulated
    assert read_manifest(folder)["room"] == outcome["room"]
    for system in ("bm25", "present_engine", "random", "oracle"):
        assert set(outcome["room"][system]) == {"ct_recall@100", "qr_recall@100"}
    assert outcome["truth_pairs"] == read_truth(folder).num_rows > 0
    assert "truth" not in open_logs(folder).names
    measured = {name: row["measured"] for name, row in outcome["targets"].items()}
    assert measured["bm25_ct_recall@100"] == outcome["room"]["bm25"]["ct_recall@100"]
    assert {name for name, value in measured.items() if value is None} == {"nce_ct_recall@100", "nce_qr_recall@100"}


def test_hidden_relevant_share_is_that_of_the_truth(simulated):
    folder, outcome = simulated
    by_query = read_truth(folder, ["query", "shown"]).to_pandas().groupby("query")["shown"]
    expected = 1 - by_query.mean().mean()
    assert outcome["statistics"]["hidden_relevant"] == pytest.approx(expected, abs=1e-4)


def test_ndcg_of_bm25_is_that_of_the_metric(simulated):
    folder, outcome = simulated
    world = draw_world(SMALL, seed=0)
    engine = present_engine(world)
    grades = {}
    for row in open_logs(folder).read("judgements").to_pylist():
        if row["split"] == "test":
            grades.setdefault(row["query"], {})[row["doc_id"]] = row["grade"]
    grades = {query: graded for query, graded in grades.items() if any(graded.values())}
    stock = Stock(len(world.documents), engine.popularity)
    values = []
    for query, graded in grades.items():
        ranking = [world.documents.doc_id[d] for d in engine.bm25([query], stock, k=4)[0] if d >= 0]
        values.append(ndcg_at_k(ranking, graded, k=4))
    assert len(values) > 3
    assert outcome["targets"]["bm25_ndcg@4"]["measured"] == pytest.approx(np.mean(values), abs=1e-4)


def test_tables_pass_every_check_and_are_all_there(simulated):
    folder, outcome = simulated
    logs = open_logs(folder)
    wanted = {"documents", "searches", "candidates", "feed_views", "judgements", "knowledge_documents"}
    assert logs.names == wanted
    assert {name: logs.read(name).num_rows for name in wanted} == outcome["rows"]
    assert read_manifest(folder)["kind"] == "logs"
    assert read_manifest(folder)["arguments"]["world"]["documents"] == 300


def test_nothing_hidden_is_in_the_log(simulated):
    folder, _ = simulated
    logs = open_logs(folder)
    for name in logs.names:
        for file in logs.files(name):
            assert set(pq.read_schema(file).names) <= set(SCHEMAS[name].arrow.names)


def test_funnel_and_columns(simulated):
    candidates = open_logs(simulated[0]).read("candidates")
    stages = candidates["stage"].to_numpy(zero_copy_only=False)
    shown = stages == "shown"
    assert set(stages) == {"shown", "ranked_not_shown", "filtered_before_ranking"}
    positions = candidates["position"].to_numpy(zero_copy_only=False)
    assert np.isnan(positions[~shown]).all()
    assert set(positions[shown]) == set(range(1, 11))
    clicked = candidates["clicked"].fill_null(False).to_numpy(zero_copy_only=False)
    assert clicked.any()
    assert not clicked[~shown].any()
    assert (candidates["watch_seconds"].is_valid().to_numpy() == clicked).all()


def test_no_feed_view_or_candidate_before_its_publication(simulated):
    connection = open_logs(simulated[0]).connect()
    documents, searches = connection.table("documents"), connection.table("searches")
    feed = connection.table("feed_views").join(documents, "doc_id")
    assert feed.filter(feed.time <= feed.published_at).count().execute() == 0
    found = connection.table("candidates").join(searches, "search_id").join(documents, "doc_id")
    assert found.filter(found.time <= found.published_at).count().execute() == 0


def test_judgements_are_the_truth_split_by_query(simulated):
    judgements = open_logs(simulated[0]).read("judgements")
    world = draw_world(SMALL, seed=0)
    query = {text: i for i, text in enumerate(world.queries.text)}
    document = {doc_id: i for i, doc_id in enumerate(world.documents.doc_id)}
    rows = judgements.to_pylist()
    grades = world.pair_grades(
        np.array([query[row["query"]] for row in rows]), np.array([document[row["doc_id"]] for row in rows])
    )
    assert [row["grade"] for row in rows] == grades.tolist()
    assert set(grades.tolist()) == {0, 1, 2, 3}
    assert all(row["split"] == split_of(row["query"]) for row in rows)
    assert set(pc.unique(judgements["split"]).to_pylist()) == {"train", "dev", "test"}


def test_every_shown_document_is_judged(simulated):
    logs = open_logs(simulated[0])
    query = {row["search_id"]: normalise_query(row["query"]) for row in logs.read("searches").to_pylist()}
    judged = {(row["query"], row["doc_id"]) for row in logs.read("judgements").to_pylist()}
    for row in logs.read("candidates").to_pylist():
        assert row["stage"] != "shown" or (query[row["search_id"]], row["doc_id"]) in judged


@pytest.mark.parametrize("query", ["sofa", "Sofa ", "bread review", "garden  rose", "x1"])
def test_split_rule(query):
    digest = hashlib.sha256(" ".join(query.lower().split()).encode()).hexdigest()
    assert split_of(query) == (["train"] * 8 + ["dev", "test"])[int(digest[:8], 16) % 10]


def test_knowledge_documents_name_the_simulated_provider(simulated):
    knowledge = open_logs(simulated[0]).read("knowledge_documents")
    assert set(knowledge["model"].to_pylist()) == {"simulated-provider-error-0.1"}
    digests = knowledge["prompt_sha256"].to_pylist()
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("error_rate", [0.0, 0.5])
def test_the_provider_errs_at_its_rate(error_rate):
    constants = WorldConstants(documents=50, users=1, knowledge_query_share=1.0, knowledge_error_rate=error_rate)
    world = draw_world(constants, seed=0)
    table = write_knowledge(world, [])
    titles = [set(normalise_query(title).split()) for title in table["title"].to_pylist()]
    query = np.repeat(np.arange(1000), constants.knowledge_documents_per_query)
    topics = world.queries.intents[query] // constants.facets
    right = [
        any(bool(words & {world.lexicon.words[w] for w in world.lexicon.things[t, 0]}) for t in row if t >= 0)
        for words, row in zip(titles, topics, strict=True)
    ]
    assert np.mean(right) == pytest.approx(1 - error_rate, abs=0.05)


def test_typed_queries_differ_from_normalised_ones(simulated):
    typed = open_logs(simulated[0]).read("searches")["query"].to_pylist()
    known = set(draw_world(SMALL, seed=0).queries.text)
    assert {normalise_query(query) for query in typed} <= known
    assert any(query not in known for query in typed)


def test_test_period_is_the_last_day(simulated):
    assert simulated[1]["test_from"] == "2024-03-05T00:00:00Z"
    assert start_of_test(WorldConstants(days=1)).isoformat() == "2024-03-04T18:00:00+00:00"


def test_the_world_is_plausible(simulated):
    found = simulated[1]["statistics"]
    rates = found["click_through_by_position"]
    assert rates[0] > rates[2] > rates[9] > 0
    grades = found["mean_grade"]
    assert grades["filtered"] < grades["ranked"] < grades["shown"] < grades["clicked"]
    assert 0.2 < found["hidden_relevant"] < 0.95
    assert found["reformulated_within_90_s"] > 0.02
    assert found["feed_near_searches"]["relevant_not_shown"] > 0.1


def test_lexical_matching_is_insufficient_at_the_default_size():
    world = draw_world(WorldConstants(queries=200, users=1), seed=0)
    queries = np.arange(200)
    engine = present_engine(world)
    relevant = world.query_grades(queries) >= 2
    stock = Stock(len(world.documents), engine.popularity)
    found = engine.bm25(world.queries.text, stock, k=100)
    hits = (np.take_along_axis(relevant, np.maximum(found, 0), axis=1) & (found >= 0)).sum(axis=1)
    assert 0.3 < np.mean(hits / np.maximum(relevant.sum(axis=1), 1)) < 0.8


@pytest.mark.parametrize(
    "sizes",
    [
        {"documents": 1, "queries": 1, "users": 1, "days": 1, "topics": 1},
        {"documents": 3, "queries": 2, "users": 1, "days": 4, "topics": 2, "page_size": 50},
        {"documents": 200, "queries": 7, "users": 1, "days": 1, "recall_depth": 1, "logged_not_shown_per_stage": 0},
        {"documents": 30, "queries": 40, "users": 9, "days": 1, "initial_share": 0.0, "queries_per_session": 1},
        {"documents": 30, "queries": 9, "users": 3, "judged_depth": 0, "judged_relevant": 0, "judged_random": 0},
        {"documents": 30, "queries": 9, "users": 3, "knowledge_query_share": 0.0, "feed_with_search_share": 0.0},
    ],
)
def test_odd_sizes(tmp_path, sizes):
    outcome = run(tmp_path / "logs", world=WorldConstants(**sizes))
    assert outcome["rows"]["searches"] >= 1
    assert {"documents", "searches", "candidates", "judgements"} <= open_logs(tmp_path / "logs").names


def test_an_existing_directory_is_kept_unless_told_otherwise(simulated, tmp_path):
    tiny = WorldConstants(documents=5, queries=2, users=1, days=1)
    run(tmp_path / "logs", world=tiny)
    with pytest.raises(InputError, match="--overwrite"):
        run(tmp_path / "logs", world=tiny)
    run(tmp_path / "logs", world=tiny, overwrite=True)


def test_program(tmp_path):
    def program_status(*arguments):
        command = [sys.executable, "-m", "data.simulate", "--output", str(tmp_path / "logs"), *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = program_status("--documents", "40", "--queries", "10", "--users", "4", "--days", "2")
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["test_from"] == "2024-03-05T00:00:00Z"
    refused = program_status("--overwrite", "--documents", "0")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1] == "error: --documents must be at least 1, found 0"
    assert open_logs(tmp_path / "logs").read("documents").num_rows == 40


@pytest.mark.parametrize("wrong", [["--documents", "0"], ["--seed", "-1"], ["--days", "two"], ["--doc", "3"], []])
def test_wrong_arguments_exit_2(wrong, capfd):
    output = ["--output", "nowhere"] if wrong else []
    with pytest.raises(SystemExit) as ended:
        program.run(simulate, example="", arguments=[*output, *wrong])
    assert ended.value.code == 2
    assert (wrong[0] if wrong else "--output") in capfd.readouterr().err
    assert not Path("nowhere").exists()
