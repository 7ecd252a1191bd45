"""The schema of a language model's answer: the metadata of one document, validated with pydantic."""

import functools
import json
from typing import Annotated, Any, NamedTuple

from data.language_model.extra import require

_LONGEST_TITLE = 300
_LONGEST_TEXT = 5000
_MOST_WORDS = 50


class WrittenDocument(NamedTuple):
    """The document of a valid answer."""

    title: str
    text: str
    keywords: tuple[str, ...]
    cover_text: str
    related_queries: tuple[str, ...]


class InvalidAnswer(ValueError):
    """The error for an answer that does not fit the schema; the message says why."""


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema for structured output: all fields are required, others forbidden, lengths not limited."""
    listed = {"type": "array", "items": {"type": "string"}}
    properties: dict[str, Any] = {
        "title": {"type": "string"},
        "text": {"type": "string"},
        "keywords": listed,
        "cover_text": {"type": "string"},
        "related_queries": listed,
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def parse_answer(content: str) -> WrittenDocument:
    """Returns the document in an answer: a JSON object, alone, in a code fence or between other words.

    Raises InvalidAnswer if the answer has no object, a field is missing, unknown or of another type, or the title is
    empty.
    """
    pydantic = require("pydantic")
    try:
        answer = _answer_type().model_validate(_json_object(content))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidAnswer(f"field {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    title = _without_line_breaks(answer.title)
    if not title:
        raise InvalidAnswer("field title: nothing but characters that are not seen")
    return WrittenDocument(
        title,
        _without_line_breaks(answer.text),
        _lines(answer.keywords),
        _without_line_breaks(answer.cover_text),
        _lines(answer.related_queries),
    )


@functools.cache
def _answer_type() -> Any:
    pydantic = require("pydantic")
    text = Annotated[str, pydantic.Field(max_length=_LONGEST_TEXT)]
    texts = Annotated[list[str], pydantic.Field(max_length=_MOST_WORDS)]
    return pydantic.create_model(
        "Answer",
        __config__=pydantic.ConfigDict(extra="forbid", strict=True),
        title=(Annotated[str, pydantic.Field(pattern=r"\S", max_length=_LONGEST_TITLE)], ...),
        text=(text, ...),
        keywords=(texts, ...),
        cover_text=(text, ...),
        related_queries=(texts, ...),
    )


def _json_object(content: str) -> Any:
    # A reasoning model writes its reasoning first if the server does not remove it.
    answer = content.rpartition("</think>")[2]
    start = answer.find("{")
    if start < 0:
        raise InvalidAnswer("no JSON object in it")
    try:
        found, _ = json.JSONDecoder().raw_decode(answer[start:])
    except (ValueError, RecursionError) as error:
        raise InvalidAnswer(f"not JSON: {error}") from error
    return found


def _without_line_breaks(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def _lines(texts: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line for text in texts if (line := _without_line_breaks(text))))
