"""The parts of data.synthesize that need neither log tables nor an endpoint."""

import asyncio
import contextlib
import datetime
import email.utils
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops_jax.discriminator.similarity import TrigramSimilarity
from crops_jax.errors import InputError
from data.language_model.answer_cache import Answer, AnswerCache
from data.language_model.document_schema import InvalidAnswer, json_schema, parse_answer
from data.language_model.endpoint import retry_after_seconds
from data.language_model.filters import EchoDetector, NearDuplicates
from data.language_model.limits import Budget, Clock, Rate
from data.language_model.prompt import load_prompt

KEY, OTHER = "ab" * 32, "cd" * 32
ANSWER = {"title": "a", "text": "", "keywords": [], "cover_text": "", "related_queries": []}


@pytest.fixture
def pydantic():
    return pytest.importorskip("pydantic", reason="pydantic is not installed")


def test_answers_survive_in_order(tmp_path):
    file = tmp_path / "answers.jsonl"
    answers = [Answer("first\n", 1, 2), Answer("zweite ü \ud83d", 3, 4)]
    with AnswerCache(file) as cache:
        for answer in answers:
            cache.add(KEY, answer)
        assert cache.answers(KEY) == answers
    with AnswerCache(file) as cache:
        assert cache.answers(KEY) == answers
        assert (cache.count(KEY), cache.count(OTHER), cache.answers(OTHER)) == (2, 0, [])
        assert (cache.prompt_tokens, cache.completion_tokens) == (4, 6)


def test_wherever_the_file_was_cut_the_whole_answers_are_kept(tmp_path):
    file = tmp_path / "answers.jsonl"
    with AnswerCache(file) as cache:
        cache.add(KEY, Answer("one", 1, 1))
        first = file.stat().st_size
        cache.add(OTHER, Answer("two", 1, 1))
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with AnswerCache(file) as cache:
            assert (cache.count(KEY), cache.count(OTHER)) == (int(length >= first), 0)
            cache.add(OTHER, Answer("again", 1, 1))
        with AnswerCache(file) as cache:
            assert cache.answers(OTHER) == [Answer("again", 1, 1)]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    file = tmp_path / "answers.jsonl"
    for line in ("{}", "[]", "nonsense", '{"key": "xyz", "content": "", "prompt_tokens": 1, "completion_tokens": 1}'):
        file.write_text(f"{line}\n")
        with pytest.raises(InputError, match=r"answers\.jsonl: what stands at byte 0"):
            AnswerCache(file)


def test_one_process_writes_and_others_may_read(tmp_path):
    file = tmp_path / "answers.jsonl"
    with AnswerCache(file) as cache:
        cache.add(KEY, Answer("one", 1, 1))
        with pytest.raises(InputError, match="another process"):
            AnswerCache(file)
        with open(file, "ab") as torn:
            torn.write(b"half")
        with AnswerCache(file, read_only=True) as reader:
            assert reader.answers(KEY) == [Answer("one", 1, 1)]
        assert file.read_bytes().endswith(b"half")


def test_the_schema_is_what_is_validated(pydantic):
    assert set(json_schema()["required"]) == set(ANSWER)
    assert parse_answer(json.dumps(ANSWER)).title == "a"
    for field in ANSWER:
        with pytest.raises(InvalidAnswer, match=field):
            parse_answer(json.dumps({name: value for name, value in ANSWER.items() if name != field}))
    for wrong in ({"title": " "}, {"title": 3}, {"keywords": "a"}, {"keywords": [1]}, {"more": 1}, {"text": None}):
        with pytest.raises(InvalidAnswer, match=next(iter(wrong))):
            parse_answer(json.dumps(ANSWER | wrong))


@pytest.mark.parametrize(
    "content", ["", "no", "{", '{"title": ', "[" * 10000, "{" + '"a":[' * 20000, "null", '{"a":NaN}']
)
def test_what_is_no_object_is_invalid(pydantic, content):
    with pytest.raises(InvalidAnswer):
        parse_answer(content)


@settings(max_examples=200, deadline=None)
@given(
    st.text()
    | st.recursive(st.none() | st.text() | st.floats(), lambda c: st.dictionaries(st.text(), c)).map(json.dumps)
)
def test_any_content_is_a_document_or_invalid(content):
    pytest.importorskip("pydantic", reason="pydantic is not installed")
    with contextlib.suppress(InvalidAnswer):
        parse_answer(content).title.encode()


def test_texts_are_one_line_and_valid_unicode(pydantic):
    document = parse_answer(json.dumps(ANSWER | {"title": "a\n \0b", "keywords": ["x", " ", "x", "y\tz"]}))
    assert (document.title, document.keywords) == ("a b", ("x", "y z"))
    # Half a surrogate pair is valid JSON, but no table holds it.
    with pytest.raises(InvalidAnswer, match="title"):
        parse_answer(json.dumps(ANSWER | {"title": "a \ud83d"}))


def test_retry_after_is_a_number_or_a_date():
    assert retry_after_seconds("12") == 12.0
    assert retry_after_seconds("-3") == 0.0
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert 3000 < retry_after_seconds(email.utils.format_datetime(soon, usegmt=True)) <= 3600
    for header in (None, "", "later", "nan", "inf", "Wed, 99 Foo"):
        assert retry_after_seconds(header) is None


def test_places_are_evenly_spaced_and_wait_for_a_pause():
    time = [0.0]
    rate = Rate(60, Clock(lambda: time[0], asyncio.sleep))
    assert [rate.take() for _ in range(3)] == [0.0, 1.0, 2.0]
    rate.hold(10)
    assert rate.take() == 10.0
    time[0] = 100.0
    assert (rate.take(), rate.held_seconds) == (0.0, 0.0)
    unlimited = Rate(None, Clock(lambda: time[0], asyncio.sleep))
    assert [unlimited.take() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_budget_waits_for_what_is_under_way():
    async def scenario():
        budget = Budget(max_total_tokens=100)
        assert await budget.reserve(60, 0)
        second = asyncio.create_task(budget.reserve(50, 0))
        await asyncio.sleep(0)
        assert not second.done()
        await budget.settle(60, 0, used=(10, 5))
        assert await second
        await budget.settle(50, 0, used=(50, 0))
        assert not await budget.reserve(50, 0)
        return budget

    budget = asyncio.run(scenario())
    assert (budget.prompt_tokens, budget.completion_tokens, budget.exhausted) == (60, 5, "max_total_tokens")


def test_near_duplicates_are_those_of_an_exhaustive_comparison():
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice(list("abcdefghij"), 5)) for _ in range(60)]
    texts = []
    for _ in range(60):
        own = list(rng.choice(words, 20))
        texts.append(" ".join(own))
        own[int(rng.integers(20))] = "changed"
        texts.append(" ".join(own))
    cosine, kept, expected = TrigramSimilarity(), [], []
    for text in texts:
        new = not kept or cosine.score([text] * len(kept), kept).max() < 0.9
        expected.append(new)
        if new:
            kept.append(text)
    found = NearDuplicates(similarity=0.9)
    assert found.keep(texts[:50]) + found.keep(texts[50:]) == expected
    assert 40 < expected.count(False) < 80


def test_duplicates_in_scripts_without_blanks_and_empty_texts():
    found = NearDuplicates(similarity=0.9)
    texts = ["红色的台灯适合卧室阅读使用", "红色的台灯适合卧室阅读使用", "蓝色的椅子", "", "Red LAMP", "red  lamp"]
    assert found.keep(texts) == [True, False, True, True, True, False]


def test_echoes_are_found_in_any_field():
    prompt = load_prompt(None)
    example = {"title": "scarlet lamp", "text": "A lamp in scarlet that is sold by the dozen."}
    request = prompt.render("red lamp", example, number=1, documents=1)
    echoes = EchoDetector(prompt, duplicate_similarity=0.9)
    for echo in (
        "Red lamps. USE WHAT YOU KNOW of the world. Never mention the query, these things",
        "search query: Red Lamp",
        'Answer with one JSON object of this JSON schema, and nothing else: {"type": "object"}',
        "a $query",
        "A lamp in scarlet that is sold by the dozens.",
    ):
        assert echoes.is_echo(request, ["a lamp", echo]), echo
    for fine in ("red lamp", "scarlet lamp", "A search for the red lamp that lights up the world", "text and keywords"):
        assert not echoes.is_echo(request, ["a lamp", fine]), fine


def test_places_in_the_query_are_left_alone():
    request = load_prompt(None).render("what is $query in $5", {"title": "$number"}, number=1, documents=2)
    assert "Search query: what is $query in $5" in request.messages[1][1]
    assert '{"title": "$number"}' in request.messages[1][1]


def test_keys_tell_model_prompt_and_sampling_apart():
    prompt = load_prompt(None)
    one, two = (prompt.render("a", None, number=number, documents=2) for number in (1, 2))
    keys = {one.key("m", {"t": 1}), two.key("m", {"t": 1}), one.key("n", {"t": 1}), one.key("m", {"t": 2})}
    assert len(keys) == 4
    assert one.key("m", {"t": 1}) == prompt.render("a", None, number=1, documents=2).key("m", {"t": 1})
    assert "[example]" not in one.text
