"""A simulated language model. It knows the vocabulary of the world and writes for a random intent at a set rate.

Its name in the log table says that it is simulated and states the rate.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data.world.behaviour.day import Day
from data.world.truth.documents import Subject, draw_texts
from data.world.truth.lexicon import draw_from_rows
from data.world.world import World


def model_name(error_rate: float) -> str:
    """Returns the name of the simulated language model for the log table."""
    return f"simulated-provider-error-{error_rate:g}"


def write_knowledge(world: World, days: Sequence[Day]) -> pa.Table:
    """Returns the table knowledge_documents, with the documents that the language model writes for some queries.

    Args:
      world: the world.
      days: the served days that provide the example of a query, which is its first clicked document. They must not
        include days of the test period.
    """
    constants, queries = world.constants, world.queries
    rng = world.streams.generator("provider")
    chosen = np.flatnonzero(rng.random(len(queries)) < constants.knowledge_query_share)
    query = np.repeat(chosen, constants.knowledge_documents_per_query)
    column = draw_from_rows(queries.intent_shares[query], rng.random(len(query)))
    intent = queries.intents[query, column]
    wrong = rng.random(len(query)) < constants.knowledge_error_rate
    intent = np.where(wrong, rng.integers(0, constants.topics * constants.intents_per_topic, len(query)), intent)
    topic, entity, facet = world.split_intents(intent)
    # The language model draws a new name for a thing every time, and uses no words that are unrelated to the subject.
    fluent = dataclasses.replace(constants, synonym_loyalty=0.0, noise_word_share=0.0)
    subject = Subject(topic, np.full(len(query), -1), facet, entity)
    texts = draw_texts(subject, world.lexicon, fluent, world.streams.generator("provider texts"))
    examples = _find_first_clicks(days)
    number = np.arange(len(query)) % constants.knowledge_documents_per_query
    prompts = [
        prompt(queries.text[q], _format_example(world, examples.get(int(q))), number=int(n) + 1)
        for q, n in zip(query, number, strict=True)
    ]
    return pa.table(
        {
            "query": pa.array([queries.text[q] for q in query], pa.string()),
            "doc_id": pa.array([f"k{q:06d}-{n}" for q, n in zip(query, number, strict=True)], pa.string()),
            "title": pa.array(texts.title, pa.string()),
            "text": pa.array([f"{a} {b}" for a, b in zip(texts.text, texts.keywords, strict=True)], pa.string()),
            "model": pa.array([model_name(constants.knowledge_error_rate)] * len(query), pa.string()),
            "prompt_sha256": pa.array([hashlib.sha256(text.encode()).hexdigest() for text in prompts], pa.string()),
        }
    )


def prompt(query: str, example: str | None, *, number: int) -> str:
    """Returns the prompt for one document of a query.

    Args:
      query: the query.
      example: the text of a relevant document, or None if the log contains none.
      number: the number of the document among those of the query; the first is 1.
    """
    lines = ["Write the metadata of a document that satisfies a search query: title, text, keywords."]
    if example:
        lines += ["One document that satisfied it:", example]
    return "\n".join([*lines, f"Query: {query}", f"Document {number}:"])


def _format_example(world: World, document: int | None) -> str | None:
    """Returns the texts of a document as an example for the prompt."""
    if document is None:
        return None
    texts = world.documents.texts
    return f"title: {texts.title[document]}\ntext: {texts.text[document]}\nkeywords: {texts.keywords[document]}"


def _find_first_clicks(days: Sequence[Day]) -> dict[int, int]:
    """Returns the first clicked document of each query that has a click."""
    first: dict[int, int] = {}
    for day in days:
        row, column = np.nonzero(day.searches.clicked)
        for query, document in zip(day.searches.query[row], day.searches.pages.shown[row, column], strict=True):
            first.setdefault(int(query), int(document))
    return first
