"""The one-shot prompt: a text file with placeholders for the query and one relevant document. Users can replace it.

The text above a line of three dashes is the system message, the text below it is the user message; without such a line
all of it is the user message. Lines between [example] and [/example] are left out for a query without a known relevant
document. The placeholders are $query, $example (a JSON object of the example's fields), $number and $documents (this is
document 1 of 2); $$ is a dollar sign.
"""

import hashlib
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crops_jax.errors import InputError
from crops_jax.text import DOCUMENT_FIELDS, words
from data.language_model.document_schema import json_schema

DEFAULT = Path(__file__).with_name("one_shot_prompt.txt")
_PLACES = {"query", "example", "number", "documents"}
_EXAMPLE = re.compile(r"^\[example\][ \t]*\n(.*?)^\[/example\][ \t]*(?:\n|\Z)", re.MULTILINE | re.DOTALL)
# A long article would fill the context and cost money; its first thousand characters show what documents look like.
_FIELD_CHARACTERS = 1000


class Request(NamedTuple):
    """One request to the model."""

    query: str
    messages: tuple[tuple[str, str], ...]
    """The (role, content) of each message."""
    example: Mapping[str, str | None] | None
    lines: tuple[tuple[str, ...], ...]
    """The words of each line of the rendered prompt that has words besides the query or the example."""

    @property
    def text(self) -> str:
        return "\n\n".join(f"{role}: {content}" for role, content in self.messages)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the prompt's text, as in the column prompt_sha256."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def key(self, model: str, sampling: Mapping[str, Any]) -> str:
        """Returns the SHA-256 of model, prompt and sampling settings, which is the key of the answers."""
        identity = json.dumps([model, self.messages, dict(sampling)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(identity.encode()).hexdigest()


class Prompt:
    """The content of a prompt file, checked."""

    def __init__(self, text: str, *, name: str):
        self.text = text
        *above, user = re.split(r"^---[ \t]*$", text, maxsplit=1, flags=re.MULTILINE)
        system = "".join(above)
        self._system = string.Template(system.strip())
        self._user = {known: string.Template(_with_example(user, known=known).strip()) for known in (True, False)}
        _check(self._system, system, name)
        _check(self._user[True], user, name)
        if "query" not in _places(self._user[False].template) | _places(self._system.template):
            raise InputError(f"prompt {name}: $query is nowhere outside [example]; the model must see the query")

    @property
    def shows_example(self) -> bool:
        return "example" in _places(self._user[True].template) | _places(self._system.template)

    @property
    def instructions(self) -> list[str]:
        """The prompt's own words: the text between the placeholders, and the line with the JSON schema."""
        pieces = [re.split(r"\$\{?\w+\}?", part.template) for part in (self._system, self._user[True])]
        return [piece for part in pieces for piece in part] + [_schema_line()]

    def render(self, query: str, example: Mapping[str, str | None] | None, *, number: int, documents: int) -> Request:
        """Returns the request for one document of one query.

        Args:
          query: the normalised query.
          example: the fields of a relevant document; None if none is known.
          number: the number of this document, from 1 to `documents`.
          documents: the number of documents that are requested for the query.
        """
        shown = None if example is None else _example_text(example)
        values = {"query": query, "example": shown or "", "number": str(number), "documents": str(documents)}
        system = "\n\n".join(part for part in (self._system.substitute(values), _schema_line()) if part)
        template = self._user[shown is not None]
        user = template.substitute(values)
        return Request(query, (("system", system), ("user", user)), example, _telling_lines(template, values))


def load_prompt(path: str | None) -> Prompt:
    """Reads the prompt of a file, by default the one beside this module. Raises InputError for an invalid prompt."""
    file = DEFAULT if path is None else Path(path)
    try:
        return Prompt(file.read_text(encoding="utf-8"), name=str(file))
    except UnicodeDecodeError as error:
        raise InputError(f"prompt {file}: not UTF-8 text ({error}); save it as UTF-8") from error


def _with_example(text: str, *, known: bool) -> str:
    return _EXAMPLE.sub(lambda block: block.group(1) if known else "", text)


def _places(template: str) -> set[str]:
    found = string.Template.pattern.finditer(template)
    return {name for match in found if (name := match.group("named") or match.group("braced"))}


def _check(template: string.Template, text: str, name: str) -> None:
    for match in string.Template.pattern.finditer(text):
        if match.group("invalid") is not None:
            row = text[: match.start()].count("\n") + 1
            raise InputError(f"prompt {name}: a lone $ (line {row} of its part); write $$ for a dollar sign")
    if unknown := sorted(_places(template.template) - _PLACES):
        known = ", ".join(f"${place}" for place in sorted(_PLACES))
        raise InputError(f"prompt {name}: ${unknown[0]} is not one of {known}; write $$ for a dollar sign")
    if re.search(r"^\[/?example\]", template.template, re.MULTILINE):
        raise InputError(f"prompt {name}: [example] and [/example] each need a line of their own, in this order")


def _schema_line() -> str:
    return "Answer with one JSON object of this JSON schema, and nothing else: " + json.dumps(json_schema())


def _example_text(example: Mapping[str, str | None]) -> str:
    fields = {
        field: " ".join(value.split())[:_FIELD_CHARACTERS] for field in DOCUMENT_FIELDS if (value := example.get(field))
    }
    return json.dumps(fields, ensure_ascii=False)


def _telling_lines(template: string.Template, values: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    lines = []
    for line in template.template.splitlines():
        own = words(re.sub(r"\$\{?\w+\}?", " ", line))
        rendered = words(string.Template(line).substitute(values))
        if own and "example" not in _places(line) and len(rendered) >= 3:
            lines.append(tuple(rendered))
    return tuple(lines)
