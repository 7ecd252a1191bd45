"""data.synthesize on a small log, against a server on the loopback."""

import pytest

from data.language_model.limits import Clock
from data.synthesize import SynthesizeArguments, synthesize
from tests.data.language_model.chat_server import ChatServer
from tests.data.language_model.writing import THINGS, FakeClock


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
