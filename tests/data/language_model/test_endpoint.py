"""Endpoints that fail, stall, refuse and answer nonsense."""

import json

import pytest

from crops_jax.errors import InputError, NamedFailure
from tests.data.language_model.chat_server import Cut, Reply, document, error, query_of
from tests.data.language_model.writing import table

pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")


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


@pytest.mark.parametrize("status", [500, 503, 408, 409])
def test_failures_that_pass_are_retried_with_backoff(run, server, status):
    def behave(number, body):
        return error(status) if number < 3 else json.dumps(document(query_of(body)))

    server.behave = behave
    outcome = run()
    assert (outcome["written"], outcome["retries"], outcome["rate_limited"]) == (4, 3, 0)
    assert [0.5 * 2**k <= wait <= 2**k for k, wait in enumerate(run.time.slept)] == [True] * 3


def test_waits_double_up_to_a_minute_and_never_undercut_the_endpoint(run, server):
    def behave(number, body):
        if number == 1:
            return error(503, Retry_After=45)
        return error(503) if number < 9 else json.dumps(document(query_of(body)))

    server.behave = behave
    run(max_queries=1, max_retries=9)
    assert run.time.slept.pop(1) == 45.0
    full = [1.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert [most / 2 <= wait <= most for most, wait in zip(full, run.time.slept, strict=True)] == [True] * 8


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
