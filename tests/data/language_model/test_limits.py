"""How fast, how much at once and for how much money is asked."""

import json
import threading

import pytest

from crops_jax.errors import NamedFailure
from tests.data.language_model.chat_server import Reply, completion, document, error, query_of

pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")


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


def test_answers_without_usage_are_estimated(run, server):
    def behave(number, body):
        return Reply(200, completion(json.dumps(document(query_of(body)))) | {"usage": None})

    server.behave = behave
    outcome = run()
    assert outcome["prompt_tokens"] > 1000
    assert outcome["completion_tokens"] > 100
