"""Hierarchical label assignment (HLA), which merges the rows of all perspectives to one row per (query, doc_id)."""

import json
from collections.abc import Mapping

import ibis
import pyarrow as pa

from crops_jax.errors import InputError
from crops_jax.labels import Level

POSITIVE_SOURCES = ("search_log", "query_level", "system_level", "knowledge_level", "judgements")
"""The sources of positives: the four perspectives, and judgements as labels."""

NEGATIVE_SOURCES = ("shown_not_clicked", "ranked_not_shown", "filtered_before_ranking", "model_mined")
"""The sources of negatives: the stages of the search log, and the hard negatives that an encoder mines."""

PRECEDENCE = POSITIVE_SOURCES + NEGATIVE_SOURCES
"""All sources. If rows of a pair have equal levels, the row whose source is first here determines the label."""

PRESETS: dict[str, dict[str, int]] = {
    "hla": {},
    "query_level_at_4": {"query_level": Level.POSITIVE},
    "binary": {
        "query_level": Level.POSITIVE,
        "shown_not_clicked": Level.IN_BATCH_NEGATIVE,
        "ranked_not_shown": Level.IN_BATCH_NEGATIVE,
        "filtered_before_ranking": Level.IN_BATCH_NEGATIVE,
    },
}
"""The assignments of the paper's ablation: name -> source -> level. Other sources keep their level of HLA."""

LABEL_SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("level", pa.int8()),
        ("source", pa.string()),
        ("score", pa.float64()),
        ("evidence", pa.string()),
    ]
)


def parse_levels(text: str) -> dict[str, int]:
    """Parses the name of a preset or "SOURCE=LEVEL,...".

    Returns:
      source -> level, for the sources whose level differs from HLA.

    Raises:
      InputError: the text has another form, or names a source more than once.
    """
    if text in PRESETS:
        return {source: int(level) for source, level in PRESETS[text].items()}
    levels = {}
    for part in text.split(","):
        source, _, level = part.strip().partition("=")
        if source not in PRECEDENCE or level not in {"0", "1", "2", "3", "4", "5"}:
            raise InputError(
                f"--levels {text!r}: {part.strip()!r} is neither a preset ({', '.join(PRESETS)}) nor SOURCE=LEVEL with "
                f"a level of 0 to 5 and a source of {', '.join(PRECEDENCE)}"
            )
        if source in levels:
            raise InputError(f"--levels {text!r}: {source} is named more than once; give it one level")
        levels[source] = int(level)
    return levels


def assign_levels(rows: ibis.Table, *, levels: Mapping[str, int] | None = None) -> ibis.Table:
    """Returns the label table, with one row per (query, doc_id).

    If rows of a pair conflict, the row with the highest level determines the label; of rows with equal levels, the row
    whose source is first in PRECEDENCE. evidence is JSON text: a list, sorted as text, of all rows of the pair, each as
    {source, level, score, via_query, gap_seconds, supporters}. Only the number of users is kept.

    Args:
      rows: the rows of all perspectives, with the schema data.perspectives.rows.SCHEMA.
      levels: source -> level, for the sources whose level differs from that of their perspective.

    Returns:
      query, doc_id, level, source, score, evidence; the rows are not sorted.
    """
    changed = [(rows.source == source, ibis.literal(int(level), "int8")) for source, level in (levels or {}).items()]
    if changed:
        rows = rows.mutate(level=ibis.cases(*changed, else_=rows.level))
    position = ibis.cases(
        *((rows.source == source, index) for index, source in enumerate(PRECEDENCE)), else_=len(PRECEDENCE)
    )
    rows = rows.mutate(
        rank=(9 - rows.level.cast("int64")) * 100 + position,
        # argmin skips nulls: with a null, the label would get the score of a source that does not determine it.
        kept_score=rows.score.fill_null(-1.0),
        entry=_entry(rows),
    )
    labels = rows.group_by("query", "doc_id").agg(
        level=rows.level.max(),
        source=rows.source.argmin(rows.rank),
        score=rows.kept_score.argmin(rows.rank),
        entries=rows.entry.collect(),
    )
    return labels.select(
        "query",
        "doc_id",
        "level",
        "source",
        score=labels.score.nullif(-1.0),
        evidence="[" + labels.entries.sort().join(", ") + "]",
    )


def _entry(rows: ibis.Table) -> ibis.expr.types.StringValue:
    parts = [
        ibis.literal('{"source": "') + rows.source + '"',
        ibis.literal('"level": ') + rows.level.cast("string"),
        ibis.literal('"score": ') + _number(rows.score),
        ibis.literal('"via_query": ') + _quoted(rows.via_query),
        ibis.literal('"gap_seconds": ') + _number((rows.gap_seconds * 1000 + 0.5).floor() / 1000),
        ibis.literal('"supporters": ') + _number(rows.supporters),
    ]
    text = parts[0]
    for part in parts[1:]:
        text = text + ", " + part
    return text + "}"


def _number(value) -> ibis.expr.types.StringValue:
    """Returns a number as JSON.

    Fractions have up to 6 decimals, because backends write very small and very large fractions in different forms.
    """
    if not value.type().is_floating():
        return value.cast("string").fill_null("null")
    text = value.cast("decimal(18, 6)").cast("string").re_replace("0+$", "").re_replace("[.]$", ".0")
    return text.fill_null("null")


def _quoted(text) -> ibis.expr.types.StringValue:
    """Returns a text as JSON, by replacements, because not every backend has functions for JSON."""
    for character in ("\\", '"'):
        text = text.replace(character, "\\" + character)
    # White space is folded in a normalised query; these are the control characters that are not white space.
    for code in [*range(1, 9), *range(14, 28)]:
        text = text.replace(chr(code), json.dumps(chr(code))[1:-1])
    return (ibis.literal('"') + text + '"').fill_null("null")
