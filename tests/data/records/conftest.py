"""Log tables of the documents that labels name."""

import pyarrow as pa
import pytest

from data.tables import write_table
from tests.data.records.labels import THINGS


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs")
    documents = pa.table(
        {
            "doc_id": [f"d{i}" for i in range(12)],
            "title": [f"{THINGS[i % 8]} number {i}" for i in range(12)],
            "text": ["A long description of this thing. " * 20] + [None] * 11,
            "keywords": [f"thing{i % 2}" for i in range(12)],
        }
    )
    knowledge = pa.table(
        {
            "query": [f"{THINGS[i]} {i}" for i in range(3)],
            "doc_id": [f"k{i}" for i in range(3)],
            "title": ["what people know", "what else", ""],
            "text": ["about red shoes", "", ""],
            "model": ["m"] * 3,
            "prompt_sha256": ["0"] * 3,
        }
    )
    judgements = pa.table({"query": ["red shoe 0"], "doc_id": ["d0"], "grade": [1.0]})
    write_table(path, "documents", documents)
    write_table(path, "knowledge_documents", knowledge)
    write_table(path, "judgements", judgements)
    return path
