"""Answers that were given are kept, whatever ended the run, and nothing is asked twice."""

import json
import os
import signal

import pytest

from crops_jax.errors import InputError, Interrupted, NamedFailure
from tests.data.language_model.chat_server import document, error, query_of

pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("pydantic", reason="pydantic is not installed")


def test_called_again_nothing_is_asked_and_the_bytes_are_the_same(run, server, tmp_path):
    run()
    before = {file.name: file.read_bytes() for file in (tmp_path / "docs").iterdir()}
    outcome = run(concurrency=8)
    assert {file.name: file.read_bytes() for file in (tmp_path / "docs").iterdir()} == before
    assert len(server.requests) == 4
    assert (outcome["cached"], outcome["answered"]) == (4, 0)


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
