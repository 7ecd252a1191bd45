"""The description of a directory of data.synthesize."""

from pathlib import Path
from typing import Any

from crops_jax.artifacts import content_fingerprint, read_manifest
from crops_jax.errors import InputError
from data.language_model.answer_cache import AnswerCache
from data.tables import SCHEMAS, connect_duckdb
from data.tables.checks import check_table
from data.tables.footers import find_table

_TABLE = "knowledge_documents"


def describe_knowledge_documents(path: Path) -> dict[str, Any]:
    """Returns the numbers of documents, queries and tokens of all answers, and the first rows. It reads all files.

    Raises InputError if the table or the answers are broken, or if the table does not match the manifest.
    """
    manifest = read_manifest(path)
    answers = path / "answers.jsonl"
    if not answers.is_file():
        raise InputError(f"{answers}: no such file, although it must hold every answer; call data.synthesize again")
    with AnswerCache(answers, read_only=True) as cache:
        tokens = {"prompt_tokens": cache.prompt_tokens, "completion_tokens": cache.completion_tokens}
    table = find_table(path, _TABLE, SCHEMAS[_TABLE])
    if table is None:
        return {"finished": False, **tokens}
    with connect_duckdb() as connection:
        check_table(connection, table)
        queries = connection.sql(f"SELECT count(DISTINCT query) AS queries FROM {_TABLE}").fetchall()[0][0]
        samples = connection.sql(f"SELECT query, title, text, model FROM {_TABLE} LIMIT 3").to_arrow_table().to_pylist()
    if "synthesized" in manifest and content_fingerprint(path / f"{_TABLE}.parquet") != manifest["fingerprint"]:
        raise InputError(
            f"{path}: {_TABLE}.parquet is not the table that its manifest was written for; call data.synthesize again"
        )
    return {"finished": True, "rows": table.rows, "queries": queries, **tokens, "samples": samples}
