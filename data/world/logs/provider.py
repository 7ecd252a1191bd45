"""A simulated language model: it knows the world's vocabulary, and errs at a set rate. It is named so in the table."""

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
    return f"simulated-provider-error-{error_rate:g}"


def write_knowledge(world: World, days: Sequence[Day]) -> pa.Table:
    """The table knowledge_documents: a few documents for some of the queries.

    Args:
      days: logged days that the one-shot examples (the first clicked document of a query) may come from; none of the
        test period.
    """
    constants, queries = world.constants, world.queries
    rng = world.streams.generator("provider")
    asked = np.flatnonzero(rng.random(len(queries)) < constants.knowledge_query_share)
    query = np.repeat(asked, constants.knowledge_documents_per_query)
    meant = draw_from_rows(queries.intent_shares[query], rng.random(len(query)))
    intent = queries.intents[query, meant]
    wrong = rng.random(len(query)) < constants.knowledge_error_rate
    intent = np.where(wrong, rng.integers(0, constants.topics * constants.facets, len(query)), intent)
    topic, facet = np.divmod(intent, constants.facets)
    # It uses every name of a thing as it comes, and no word that has nothing to do with the subject.
    fluent = dataclasses.replace(constants, synonym_loyalty=0.0, noise_word_share=0.0)
    subject = Subject(topic, np.full(len(query), -1), facet)
    texts = draw_texts(subject, world.lexicon, fluent, world.streams.generator("provider texts"))
    examples = _first_clicked(days)
    number = np.arange(len(query)) % constants.knowledge_documents_per_query
    prompts = [
        prompt(queries.text[q], _example(world, examples.get(int(q))), number=int(n) + 1)
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
    """Returns the queries for the language model, each with one relevant example if the log has one."""
    lines = ["Write the metadata of a document that satisfies a search query: title, text, keywords."]
    if example:
        lines += ["One document that satisfied it:", example]
    return "\n".join([*lines, f"Query: {query}", f"Document {number}:"])


def _example(world: World, document: int | None) -> str | None:
    if document is None:
        return None
    texts = world.documents.texts
    return f"title: {texts.title[document]}\ntext: {texts.text[document]}\nkeywords: {texts.keywords[document]}"


def _first_clicked(days: Sequence[Day]) -> dict[int, int]:
    first: dict[int, int] = {}
    for day in days:
        row, place = np.nonzero(day.searches.clicked)
        for query, document in zip(day.searches.query[row], day.searches.pages.shown[row, place], strict=True):
            first.setdefault(int(query), int(document))
    return first
