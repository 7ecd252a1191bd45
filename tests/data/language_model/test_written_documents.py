"""Which queries documents are written for, from which prompt, and which documents are kept."""

import hashlib
import json

import pyarrow.parquet as pq
import pytest

from crops_jax.artifacts import read_manifest
from crops_jax.errors import InputError
from data.mine import MineArguments, mine
from data.synthesize import SynthesizeArguments, synthesize
from tests.data.language_model.chat_server import SCHEMA_FIELDS, document, error, query_of
from tests.data.language_model.writing import THINGS, table

pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")


def test_documents_are_written_for_every_query_with_an_example(run, server, tmp_path):
    outcome = run()
    rows = table(tmp_path / "docs")
    assert [row["query"] for row in rows] == ["red lamp", "red chair", "red phone", "red table"]
    assert rows[0]["title"] == "Everything on the red lamp"
    assert rows[0]["text"].startswith("red lamp guide red lamp! A long look")
    assert "cheap" not in rows[0]["text"]
    assert {row["model"] for row in rows} == {"writer"}
    assert len({row["doc_id"] for row in rows}) == 4
    system, user = server.requests[0]["messages"]
    assert 'found relevant for the query:\n{"title": "Scarlet lamp", "text": "Our lamp in scarlet' in user["content"]
    prompt = f"system: {system['content']}\n\nuser: {user['content']}"
    assert rows[0]["prompt_sha256"] == hashlib.sha256(prompt.encode()).hexdigest()
    wanted = server.requests[0]["response_format"]
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["schema"]["required"] == list(SCHEMA_FIELDS)
    counts = {"queries": 4, "requests": 4, "written": 4, "answered": 4, "cached": 0, "left": 0, "invalid": 0}
    assert counts.items() <= outcome.items()
    assert (outcome["prompt_tokens"], outcome["completion_tokens"]) == (400, 40)
    manifest = read_manifest(tmp_path / "docs")
    assert manifest["kind"] == "knowledge_documents"
    assert manifest["synthesized"]["written"] == 4


def test_the_documents_are_mined(run, logs, tmp_path):
    run()
    (logs / "knowledge_documents.parquet").write_bytes((tmp_path / "docs/knowledge_documents.parquet").read_bytes())
    outcome = mine(
        MineArguments(logs=str(logs), output=str(tmp_path / "labels"), perspectives="search_log,knowledge_level")
    )
    assert outcome["by_source"]["knowledge_level"] == 4


def test_train_judgements_give_examples_and_test_ones_are_never_read(server, write_logs, tmp_path):
    judged = [
        ("red lamp", "d1", 1.0, "train"),
        ("red lamp", "d2", 3.0, "train"),
        ("red lamp", "d3", 4.0, "test"),
        ("red chair", "d4", 4.0, "train"),
        ("red vase", "d5", 1.0, "train"),
        ("red hat", "d6", 4.0, "test"),
        ("red shoe", "d7", 4.0, "dev"),
    ]
    rows = [dict(zip(("query", "doc_id", "grade", "split"), row, strict=True)) for row in judged]
    logs = write_logs("judged", judgements=rows)
    arguments = {"logs": str(logs), "base_url": server.url, "model": "writer"}
    outcome = synthesize(SynthesizeArguments(output=str(tmp_path / "docs"), **arguments, concurrency=1))
    assert {query_of(body): "title 2" in str(body) for body in server.requests} == {
        "red chair": False,
        "red lamp": True,
    }
    assert outcome["queries"] == 2
    server.requests.clear()
    synthesize(SynthesizeArguments(output=str(tmp_path / "zero"), **arguments, zero_shot=True))
    # A grade of one in four is no example, but its query is one of the training part.
    assert {query_of(body): "found relevant" in str(body) for body in server.requests} == {
        "red chair": True,
        "red lamp": True,
        "red vase": False,
    }


def test_searches_at_the_time_until_are_not_read(run, server, at):
    run(until=at(2).isoformat())
    assert {query_of(body) for body in server.requests} == {"red lamp", "red chair"}


def test_theta_and_near_duplicates_drop_documents(run, server, logs, tmp_path):
    class Theta:
        def score(self, queries, documents):
            import numpy as np

            return np.array([0.9 if "lamp" in text else 0.6 for text in documents], np.float32)

    import data.synthesize as module
    from data.mining.relevance.theta import Theta as Kept

    same = {"title": "One lamp for all", "text": "It is the very same lamp whatever one asks for.", "cover_text": ""}
    server.behave = lambda number, body: json.dumps(
        document(query_of(body)) | (same | {"keywords": ["lamp"]} if number < 2 else {})
    )
    fitted = Kept(Theta(), {"kind": "test", "latest_time": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_theta", lambda arguments, opened: (fitted, None))
        outcome = run()
    assert (outcome["written"], outcome["duplicates"], outcome["filtered"]) == (1, 1, 2)


def test_the_discriminator_of_the_logs_is_used(server, write_logs, at, tmp_path):
    from data.hold_out import HoldOutArguments, hold_out

    searches, candidates = [], []
    for i in range(30):
        thing, other = THINGS[i % 4], THINGS[(i + 1) % 4]
        searches.append({"search_id": f"s{i}", "user_id": "u", "query": f"red {thing}", "time": at(1000 * i)})
        candidates.append({"search_id": f"s{i}", "doc_id": thing, "stage": "shown", "clicked": True})
        candidates.append({"search_id": f"s{i}", "doc_id": other, "stage": "shown", "clicked": False})
    documents = [{"doc_id": thing, "title": f"red {thing}"} for thing in THINGS]
    logs = write_logs("raw", documents=documents, searches=searches, candidates=candidates)
    split = tmp_path / "split"
    hold_out(HoldOutArguments(logs=str(logs), output=str(split), from_=at(24000).isoformat()))
    server.behave = lambda number, body: json.dumps(
        document("", title=query_of(body) if number else "nothing of it", text="", keywords=[], cover_text="")
    )
    arguments = {"logs": str(split), "base_url": server.url, "model": "writer", "concurrency": 1}
    outcome = synthesize(SynthesizeArguments(output=str(tmp_path / "docs"), **arguments, duplicate_similarity=1.0))
    assert outcome["discriminator"]["from"] == "LOGS/discriminator"
    assert outcome["filtered"] + outcome["echoed"] >= 1
    with pytest.raises(InputError, match="not before --until"):
        synthesize(SynthesizeArguments(output=str(tmp_path / "early"), **arguments, until=at(5000).isoformat()))


def test_echoes_of_the_prompt_are_dropped(run, server):
    fields = {
        "red lamp": {"text": "You write metadata of documents for a search engine's training data. A lamp."},
        "red chair": {"text": "Search query: red chair. A chair to sit on."},
        "red phone": {"title": "Scarlet phone", "text": "Our phone in scarlet, sold by the dozen."},
    }
    server.behave = lambda number, body: json.dumps(document(query_of(body)) | fields.get(query_of(body), {}))
    outcome = run()
    assert (outcome["written"], outcome["echoed"]) == (1, 3)


def test_several_documents_a_query_are_requests_of_their_own(run, server):
    def behave(number, body):
        subject = f"{query_of(body)} {number * 1234567}"
        return json.dumps(document(subject))

    server.behave = behave
    outcome = run(documents_per_query=2, max_queries=1)
    assert (outcome["requests"], outcome["written"]) == (2, 2)
    assert "document 2 of 2" in str(server.requests[1]["messages"])


def test_a_prompt_of_ones_own(run, server, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Search query: $query\nCosts $$5.\n[example]\nLike $example\n[/example]\n")
    run(prompt=str(prompt))
    assert server.requests[0]["messages"][-1]["content"].splitlines()[1] == "Costs $5."
    prompt.write_text("Search query: $query, in other words")
    with pytest.raises(InputError, match=r"\(prompt has changed\)"):
        run(prompt=str(prompt))
    for text, message in {
        "tell me": r"\$query is nowhere",
        "$query $colour": r"\$colour is not one of",
        "$query 5$ ": r"a lone \$",
        "[example]\n$query": "each need a line",
    }.items():
        prompt.write_text(text)
        with pytest.raises(InputError, match=message):
            run(prompt=str(prompt))


def test_what_was_written_can_be_described(run, server, tmp_path):
    from data.inspection.knowledge_documents import describe_knowledge_documents

    docs = tmp_path / "docs"
    server.behave = lambda number, body: error(401)
    with pytest.raises(InputError):
        run()
    assert describe_knowledge_documents(docs) == {"finished": False, "prompt_tokens": 0, "completion_tokens": 0}
    server.behave = lambda number, body: json.dumps(document(query_of(body)))
    run()
    content = describe_knowledge_documents(docs)
    assert (content["rows"], content["queries"], content["prompt_tokens"]) == (4, 4, 400)
    pq.write_table(pq.read_table(docs / "knowledge_documents.parquet").slice(1), docs / "knowledge_documents.parquet")
    with pytest.raises(InputError, match="not the table that its manifest was written for"):
        describe_knowledge_documents(docs)
