"""Answers of a language model, and the file that keeps them: a document, a named refusal, or what was kept."""

import json
from pathlib import Path
from random import Random

from data.language_model.answer_cache import Answer, AnswerCache
from data.language_model.document_schema import InvalidAnswer, json_schema, parse_answer
from tests import fuzzing
from tests.fuzzing import ACCEPTED, REFUSED

_DOCUMENT = {
    "title": "A silk tie",
    "text": "Ties of silk\nfor evenings",
    "keywords": ["tie", "silk", "tie"],
    "cover_text": "50 % off",
    "related_queries": ["silk tie", "bow tie"],
}
_WRAPPED = ["{}", "```json\n{}\n```", "Sure! Here it is: {} I hope it helps", "<think>{{}}</think>{}", "{} {}"]


def answer_case(generator: Random, folder: Path) -> str:
    """An answer whose JSON is odd or cut, in the wrappings that models use."""
    content = fuzzing.mutated_json_text(generator, _DOCUMENT).decode(errors="replace")
    if generator.random() < 0.25:
        content = json.dumps(_DOCUMENT)
    content = generator.choice(_WRAPPED).replace("{}", content).replace("{{}}", "{}")
    try:
        found = parse_answer(content)
    except InvalidAnswer as error:
        if not str(error):
            raise AssertionError("an InvalidAnswer that says nothing") from error
        return REFUSED
    assert set(found._fields) == set(json_schema()["required"])
    assert found.title.strip()
    texts = (found.title, found.text, found.cover_text, *found.keywords, *found.related_queries)
    assert all(isinstance(text, str) and "\0" not in text and "\n" not in text for text in texts)
    return ACCEPTED


def cache_case(generator: Random, folder: Path) -> str:
    """The file of answers with bytes changed: no answer is taken for another key's, and only a torn end is dropped."""
    file = folder / "answers.jsonl"
    keys = [f"{number:064x}" for number in range(4)]
    with AnswerCache(file) as cache:
        for number, key in enumerate(keys):
            cache.add(key, Answer(json.dumps(_DOCUMENT), number, 2 * number))
    lines = file.read_bytes().splitlines(keepends=True)
    place = generator.randrange(len(lines))
    if generator.random() < 0.5:
        lines[place] = fuzzing.mutated_json_text(generator, json.loads(lines[place])) + b"\n"
    else:
        lines[place] = fuzzing.mutated_bytes(generator, lines[place])
    file.write_bytes(b"".join(lines))
    complete = file.read_bytes().count(b"\n")
    with AnswerCache(file) as cache:
        found = {key: cache.answers(key) for key in keys}
        assert cache.prompt_tokens >= 0
        assert cache.completion_tokens >= 0
    assert file.read_bytes().count(b"\n") == complete
    for number, key in enumerate(keys):
        if number != place and not (number == place + 1 and not lines[place].endswith(b"\n")):
            assert Answer(json.dumps(_DOCUMENT), number, 2 * number) in found[key]
    return ACCEPTED


@fuzzing.sizes(answer_case)
def test_answers(number, tmp_path):
    fuzzing.run(answer_case, number, tmp_path, accepted=1 / 10, refused=1 / 10)


@fuzzing.sizes(cache_case)
def test_kept_answers(number, tmp_path):
    fuzzing.run(cache_case, number, tmp_path, accepted=1 / 10, refused=1 / 10)
