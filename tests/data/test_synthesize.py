"""data.synthesize from log tables to knowledge_documents, against a server on the loopback."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from crops_jax.artifacts import read_manifest
from crops_jax.errors import InputError, Interrupted, NamedFailure
from crops_jax.program import parse
from data.language_model.limits import Clock
from data.mine import MineArguments, mine
from data.synthesize import SynthesizeArguments, synthesize
from tests.data.chat_server import SCHEMA_FIELDS, ChatServer, Cut, Reply, completion, document, error, query_of

pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")

ROOT = Path(__file__).parents[2]
THINGS = ["lamp", "chair", "phone", "table"]


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.time, self.slept = 0.0, []

    def now(self):
        return self.time

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


@pytest.fixture
def server():
    with ChatServer().serving() as serving:
        yield serving


@pytest.fixture
def logs(write_logs, at):
    """ "red THING", searched more often the earlier THING stands, each with a click; and one search without a click."""
    searches, candidates = [], []
    for i, thing in enumerate(THINGS):
        for repeat in range(len(THINGS) - i):
            name = f"s{i}-{repeat}"
            searches.append({"search_id": name, "user_id": f"u{repeat}", "query": f"Red  {thing}", "time": at(i)})
            candidates.append({"search_id": name, "doc_id": f"d-{thing}", "stage": "shown", "clicked": True})
    searches.append({"search_id": "none", "user_id": "u", "query": "green hat", "time": at(0)})
    candidates.append({"search_id": "none", "doc_id": "d-lamp", "stage": "shown", "clicked": False})
    documents = [
        {"doc_id": f"d-{thing}", "title": f"Scarlet {thing}", "text": f"Our {thing} in scarlet, sold by the dozen."}
        for thing in THINGS
    ]
    return write_logs(documents=documents, searches=searches, candidates=candidates)


@pytest.fixture
def run(server, logs, tmp_path):
    """Calls synthesize on the logs; `run.clock` is the time that it sees."""

    def call(**given):
        defaults = {"logs": str(logs), "output": str(tmp_path / "docs"), "base_url": server.url, "model": "writer"}
        return synthesize(SynthesizeArguments(**(defaults | {"concurrency": 1} | given)), clock=call.clock)

    clock = FakeClock()
    call.time = clock
    call.clock = Clock(clock.now, clock.sleep)
    return call


def table(directory):
    return pq.read_table(directory / "knowledge_documents.parquet").to_pylist()


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


def test_called_again_nothing_is_asked_and_the_bytes_are_the_same(run, server, tmp_path):
    run()
    before = {file.name: file.read_bytes() for file in (tmp_path / "docs").iterdir()}
    outcome = run(concurrency=8)
    assert {file.name: file.read_bytes() for file in (tmp_path / "docs").iterdir()} == before
    assert len(server.requests) == 4
    assert (outcome["cached"], outcome["answered"]) == (4, 0)


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
    from data.theta import Theta as Kept

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


def test_invalid_answers_are_asked_again_and_counted(run, server, tmp_path):
    def behave(number, body):
        query = query_of(body)
        if query == "red lamp":
            return "I would rather not."
        if query == "red chair":
            return json.dumps({"title": "x"}) if number == 2 else "```json\n" + json.dumps(document(query)) + "\n```"
        if query == "red phone":
            return json.dumps(document(query) | {"surprise": 1})
        return "<think>{hm}</think>" + json.dumps(document(query))

    server.behave = behave
    outcome = run()
    assert {"written": 2, "invalid": 2, "answered": 7, "left": 0}.items() <= outcome.items()
    assert [row["query"] for row in table(tmp_path / "docs")] == ["red chair", "red table"]
    again = run()
    assert (again["answered"], again["invalid"], again["cached"]) == (0, 2, 4)


def test_echoes_of_the_prompt_are_dropped(run, server):
    fields = {
        "red lamp": {"text": "You write metadata of documents for a search engine's training data. A lamp."},
        "red chair": {"text": "Search query: red chair. A chair to sit on."},
        "red phone": {"title": "Scarlet phone", "text": "Our phone in scarlet, sold by the dozen."},
    }
    server.behave = lambda number, body: json.dumps(document(query_of(body)) | fields.get(query_of(body), {}))
    outcome = run()
    assert (outcome["written"], outcome["echoed"]) == (1, 3)


@pytest.mark.parametrize("status", [500, 503, 408, 409])
def test_failures_that_pass_are_retried_with_backoff(run, server, status):
    def behave(number, body):
        return error(status) if number < 3 else json.dumps(document(query_of(body)))

    server.behave = behave
    outcome = run()
    assert (outcome["written"], outcome["retries"], outcome["rate_limited"]) == (4, 3, 0)
    assert [0.5 * 2**k <= wait <= 2**k for k, wait in enumerate(run.time.slept)] == [True] * 3


def test_retry_after_is_honoured_by_all(run, server):
    server.behave = lambda number, body: (
        error(429, Retry_After=37) if number == 0 else json.dumps(document(query_of(body)))
    )
    outcome = run()
    assert run.time.slept == [37.0]
    assert (outcome["written"], outcome["rate_limited"], outcome["retries"]) == (4, 1, 1)


def test_a_pause_that_is_too_long_is_a_named_failure(run, server):
    server.behave = lambda number, body: error(429, Retry_After=5000)
    with pytest.raises(NamedFailure, match="asks to wait 5000 s"):
        run()
    assert run.time.slept == []


@pytest.mark.parametrize(
    "broken",
    [
        Cut(),
        Reply(200, b"{"),
        Reply(200, b"\xff\xfe"),
        Reply(200, {"choices": []}),
        Reply(200, [1]),
        Reply(200, {"choices": [{"message": {"content": {"a": 1}}}]}),
        Reply(502, b"<html>bad gateway</html>", Content_Type="text/html"),
    ],
    ids=["cut", "half JSON", "not UTF-8", "no choices", "a list", "no text", "proxy page"],
)
def test_broken_responses_are_asked_again(run, server, broken):
    def behave(number, body):
        if number < 2:
            raise broken
        return json.dumps(document(query_of(body)))

    server.behave = behave
    outcome = run()
    assert (outcome["written"], outcome["retries"]) == (4, 2)


def test_slow_answers_are_asked_again(run, server):
    def behave(number, body):
        if number == 0:
            server.closing.wait(30)
        return json.dumps(document(query_of(body)))

    server.behave = behave
    outcome = run(timeout_seconds=0.3)
    assert outcome["written"] == 4
    assert outcome["retries"] >= 1


def test_an_endpoint_that_goes_down_keeps_what_it_answered(run, server, tmp_path):
    answers = server.behave
    server.behave = lambda number, body: error(500) if number >= 2 else answers(number, body)
    server.models_status = 500
    with pytest.raises(NamedFailure, match=r"down: 3 attempts.*answers\.jsonl"):
        run(max_retries=2)
    assert not (tmp_path / "docs/knowledge_documents.parquet").exists()
    server.behave, asked = answers, len(server.requests)
    outcome = run()
    assert (outcome["written"], outcome["cached"], len(server.requests) - asked) == (4, 2, 2)


def test_nothing_listening_is_a_named_failure(run):
    with pytest.raises(NamedFailure, match="endpoint is down"):
        run(base_url="http://127.0.0.1:9/v1", max_retries=1)


def test_one_request_that_always_fails_does_not_hold_up_the_others(run, server):
    def behave(number, body):
        return error(500) if query_of(body) == "red chair" else json.dumps(document(query_of(body)))

    server.behave = behave
    outcome = run(max_retries=2)
    assert {"written": 3, "failed": 1, "left": 1, "retries": 2}.items() <= outcome.items()


def test_response_formats_that_are_refused_are_loosened(run, server):
    def behave(number, body):
        if body.get("response_format", {}).get("type") == "json_schema":
            return error(400, "response_format json_schema is not supported")
        return json.dumps(document(query_of(body)))

    server.behave = behave
    assert run()["response_format"] == "json_object"
    assert len(server.requests) == 5


def test_plain_text_where_no_response_format_is_taken(run, server):
    server.behave = lambda number, body: (
        error(422, "no") if "response_format" in body else json.dumps(document(query_of(body)))
    )
    outcome = run()
    assert (outcome["response_format"], outcome["written"]) == ("text", 4)


def test_max_completion_tokens_where_max_tokens_is_refused(run, server):
    server.behave = lambda number, body: (
        error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "max_tokens" in body
        else json.dumps(document(query_of(body)))
    )
    assert run()["response_format"] == "json_schema"
    assert len(server.requests) == 5


def test_one_refused_request_leaves_the_format_of_the_others(run, server):
    server.behave = lambda number, body: (
        error(400, "context too long") if query_of(body) == "red lamp" else json.dumps(document(query_of(body)))
    )
    outcome = run()
    assert {"refused": 1, "left": 1, "written": 3, "response_format": "json_schema"}.items() <= outcome.items()


@pytest.mark.parametrize(
    ("status", "message"), [(401, "does not accept a request without a key"), (404, "no model 'writer'")]
)
def test_wrong_keys_and_models_are_the_users(run, server, status, message):
    server.behave = lambda number, body: error(status)
    with pytest.raises(InputError, match=message):
        run()


def test_a_used_up_quota_is_a_named_failure(run, server):
    server.behave = lambda number, body: error(429, code="insufficient_quota", Retry_After=1)
    with pytest.raises(NamedFailure, match="quota is used up"):
        run()
    assert len(server.requests) == 1


def test_the_key_is_sent_and_never_written(run, server, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("WRITER_KEY", "sk-secret")
    server.behave = lambda number, body: json.dumps(document(query_of(body), title="sk-secret is my key"))
    run(api_key_variable="WRITER_KEY")
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-secret"}
    written = b"".join(file.read_bytes() for file in (tmp_path / "docs").iterdir())
    assert b"sk-secret" not in written
    assert "*** is my key" in table(tmp_path / "docs")[0]["title"]
    server.behave = lambda number, body: error(401, "Incorrect API key provided: sk-secret")
    with pytest.raises(InputError, match=r"provided: \*\*\*"):
        run(api_key_variable="WRITER_KEY", output=str(tmp_path / "other"))
    server.headers.clear()
    server.behave = lambda number, body: json.dumps(document(query_of(body)))
    run(output=str(tmp_path / "without"))
    assert {headers["authorization"] for headers in server.headers} == {"Bearer none"}
    assert "sk-" not in "".join(capfd.readouterr())
    monkeypatch.delenv("WRITER_KEY")
    with pytest.raises(InputError, match="no such environment variable"):
        run(api_key_variable="WRITER_KEY", output=str(tmp_path / "another"))


def test_requests_a_minute_are_spaced(run):
    run(requests_per_minute=6)
    assert run.time.slept == [10.0] * 3


def test_spending_stops_before_the_limit_and_goes_on_with_a_higher_one(run, server, tmp_path):
    prices = {"prompt_price": 1000.0, "completion_price": 10000.0, "max_tokens": 20}
    run(output=str(tmp_path / "first"), max_queries=1)
    prompt = server.requests.pop()["messages"]
    most = sum(len(message["content"]) for message in prompt) * 0.001 + 0.2
    # Two answers at .2 each; before a third, what it may cost at most would pass the limit.
    outcome = run(**prices, max_spend=most + 0.3, concurrency=4)
    assert {"stopped_by": "max_spend", "written": 2, "left": 2}.items() <= outcome.items()
    assert (outcome["spend"], server.most_under_way) == (pytest.approx(0.4), 1)
    again = run(**prices, max_spend=400.0)
    assert (again["written"], again["stopped_by"], len(server.requests)) == (4, None, 4)
    assert again["spend"] == pytest.approx(0.8)


def test_tokens_are_limited_too(run):
    outcome = run(max_total_tokens=1)
    assert (outcome["stopped_by"], outcome["written"], outcome["left"]) == ("max_total_tokens", 0, 4)


def test_requests_under_way_are_bounded(run, server):
    together = threading.Barrier(2)

    def behave(number, body):
        together.wait(30)
        return json.dumps(document(query_of(body)))

    server.behave = behave
    outcome = run(concurrency=2)
    assert (server.most_under_way, outcome["written"]) == (2, 4)


def test_a_torn_last_answer_is_asked_for_again(run, server, tmp_path):
    run()
    file = tmp_path / "docs/answers.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    outcome = run()
    assert (outcome["written"], outcome["cached"], len(server.requests)) == (4, 3, 5)
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_sigterm_keeps_what_is_under_way(run, server, tmp_path):
    def behave(number, body):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return json.dumps(document(query_of(body)))

    server.behave = behave
    previous = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="kept"):
        run()
    assert signal.getsignal(signal.SIGTERM) is previous
    assert len((tmp_path / "docs/answers.jsonl").read_text().splitlines()) == 2
    server.behave = lambda number, body: json.dumps(document(query_of(body)))
    assert (run()["written"], len(server.requests)) == (4, 4)


def test_other_arguments_need_overwrite_and_keep_the_answers(run, server, tmp_path):
    run(max_queries=2)
    with pytest.raises(InputError, match="--max-queries 2, now None"):
        run()
    outcome = run(overwrite=True)
    assert (outcome["written"], outcome["cached"], len(server.requests)) == (4, 2, 4)
    with pytest.raises(InputError, match="--model writer, now other"):
        run(model="other")


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
    with pytest.raises(InputError, match="another prompt"):
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_url": "localhost"}, "not an http"),
        ({"base_url": "http://me:secret@localhost/v1"}, "environment variable"),
        ({"base_url": "http://localhost/v1?key=secret"}, "environment variable"),
        ({"concurrency": 0}, "--concurrency 0 must be at least 1"),
        ({"alpha": 2.0}, "--alpha 2.0 is not between"),
        ({"max_spend": 1.0}, "needs --prompt-price"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"requests_per_minute": 0.0}, "--requests-per-minute"),
        ({"model": " "}, "--model is empty"),
        ({"discriminator": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_arguments_are_named(run, given, message, tmp_path):
    with pytest.raises(InputError, match=message) as raised:
        run(**given)
    assert "secret" not in str(raised.value)
    assert not (tmp_path / "docs").exists()


def test_answers_without_usage_are_estimated(run, server):
    def behave(number, body):
        return Reply(200, completion(json.dumps(document(query_of(body)))) | {"usage": None})

    server.behave = behave
    outcome = run()
    assert outcome["prompt_tokens"] > 1000
    assert outcome["completion_tokens"] > 100


def test_help_and_command_line(capsys):
    flags = "--logs a --output b --base-url http://h/v1 --model m --max-spend 3 --temperature None --zero-shot"
    arguments = parse(synthesize, flags.split())
    assert (arguments.max_spend, arguments.temperature, arguments.zero_shot) == (3.0, None, True)


def test_exit_statuses_of_the_program(server, logs, tmp_path):
    command = [sys.executable, "-m", "data.synthesize", "--logs", str(logs), "--output", str(tmp_path / "docs")]
    command += ["--base-url", server.url, "--model", "writer", "--concurrency", "1"]
    answers, started = server.behave, []

    def behave(number, body):
        if number == 1:
            started[0].send_signal(signal.SIGTERM)
        return answers(number, body)

    server.behave = behave
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        started.append(process)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (3, "")
    assert "Traceback" not in err
    server.behave = answers
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert (outcome["written"], outcome["cached"] >= 1, len(server.requests)) == (4, True, 4)


def test_what_was_written_can_be_described(run, server, tmp_path):
    from data.language_model.contents import describe_knowledge_documents

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
    with pytest.raises(InputError, match="not the one its manifest was written for"):
        describe_knowledge_documents(docs)
