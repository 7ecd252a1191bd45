"""Turns answers into rows of knowledge_documents.

Answers are parsed, repetitions of the prompt are dropped, the relevance discriminator (theta) filters the documents,
and near-duplicates are removed.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from crops_jax.discriminator import Discriminator
from crops_jax.text import document_text, normalise_query
from data.language_model.answer_cache import Answer
from data.language_model.document_schema import InvalidAnswer, WrittenDocument, parse_answer
from data.language_model.filters import EchoDetector, NearDuplicates
from data.language_model.prompt import Request

_AT_ONCE = 2000


@dataclass
class Dropped:
    """The numbers of requests without a row; the sum of these and the written rows is the number of all requests."""

    left: int = 0
    """Requests without an answer so far."""
    invalid: int = 0
    """Requests of which no answer fits the schema."""
    echoed: int = 0
    """Documents that repeat the prompt."""
    filtered: int = 0
    """Documents with theta <= alpha, the threshold that theta must exceed."""
    duplicates: int = 0
    """Documents that are nearly the same as a kept one."""


class Row(NamedTuple):
    """A row of knowledge_documents."""

    query: str
    doc_id: str
    title: str
    text: str
    model: str
    prompt_sha256: str


def written_documents(
    answered: Iterable[tuple[Request, str, list[Answer]]],
    *,
    model: str,
    echoes: EchoDetector,
    discriminator: Discriminator | None,
    alpha: float,
    duplicates: NearDuplicates,
    with_related_queries: bool,
    dropped: Dropped,
) -> pa.Table:
    """Returns the rows of the kept documents, in the order of the requests.

    Args:
      answered: (request, key, answers) of each request.
      model: the name of the model, for the column model.
      echoes: the detector of documents that repeat the prompt.
      discriminator: keeps a document if theta(query, document) > alpha; None keeps every document.
      alpha: the threshold that theta must exceed.
      duplicates: the detector of near-duplicates.
      with_related_queries: whether the related queries are added to the text; the query itself never is.
      dropped: its counts are increased.
    """
    kept: list[Row] = []
    rows = _valid(answered, model, echoes, with_related_queries, dropped)
    while some := list(itertools.islice(rows, _AT_ONCE)):
        texts = [document_text({"title": row.title, "text": row.text}) for row in some]
        passing = [True] * len(some)
        if discriminator is not None:
            passing = (discriminator.score([row.query for row in some], texts) > alpha).tolist()
        dropped.filtered += passing.count(False)
        some, texts = list(itertools.compress(some, passing)), list(itertools.compress(texts, passing))
        new = duplicates.keep(texts)
        dropped.duplicates += new.count(False)
        kept.extend(itertools.compress(some, new))
    columns = zip(*kept, strict=True) if kept else [()] * len(Row._fields)
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.table(dict(zip(Row._fields, arrays, strict=True)))


def _valid(
    answered: Iterable[tuple[Request, str, list[Answer]]],
    model: str,
    echoes: EchoDetector,
    with_related_queries: bool,
    dropped: Dropped,
) -> Iterator[Row]:
    for request, key, answers in answered:
        document = valid_document(answers)
        if document is None:
            dropped.invalid += bool(answers)
            dropped.left += not answers
        elif echoes.is_echo(request, _fields(document)):
            dropped.echoed += 1
        else:
            text = _text(request.query, document, with_related_queries)
            yield Row(request.query, f"written-{key[:24]}", document.title, text, model, request.sha256)


def valid_document(answers: Iterable[Answer]) -> WrittenDocument | None:
    """Returns the document of the first valid answer; None if no answer is valid."""
    for answer in answers:
        try:
            return parse_answer(answer.content)
        except InvalidAnswer:
            continue
    return None


def _fields(document: WrittenDocument) -> list[str]:
    several = (document.keywords, document.related_queries)
    return [document.title, document.text, document.cover_text, *itertools.chain.from_iterable(several)]


def _text(query: str, document: WrittenDocument, with_related_queries: bool) -> str:
    related = [other for other in document.related_queries if normalise_query(other) != query]
    parts = [*document.keywords, document.cover_text, document.text, *(related if with_related_queries else [])]
    return " ".join(part for part in parts if part)
