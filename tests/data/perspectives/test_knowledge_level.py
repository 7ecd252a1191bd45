"""P3: documents that a language model wrote."""

from data.perspectives.knowledge_level import positives
from data.tables import open_logs


def written(query, doc_id):
    return {
        "query": query,
        "doc_id": doc_id,
        "title": f"about {query}",
        "text": "",
        "model": "m",
        "prompt_sha256": "0" * 64,
    }


def test_every_written_document_is_a_positive_of_its_normalised_query(write_logs, at):
    logs = write_logs(
        searches=[{"search_id": "s1", "user_id": "u1", "query": "red shoes", "time": at(0)}],
        candidates=[{"search_id": "s1", "doc_id": "d0", "stage": "shown", "clicked": True}],
        knowledge_documents=[written("Red  Shoes ", "k1"), written("red shoes", "k2"), written("hat", "k3")],
    )
    rows = positives(open_logs(logs).connect().table("knowledge_documents")).to_pyarrow().to_pylist()
    assert sorted((row["query"], row["doc_id"], row["level"], row["source"]) for row in rows) == [
        ("hat", "k3", 4, "knowledge_level"),
        ("red shoes", "k1", 4, "knowledge_level"),
        ("red shoes", "k2", 4, "knowledge_level"),
    ]
    # Nobody stands behind them, and no other query led to them.
    assert {(row["score"], row["via_query"], row["gap_seconds"], row["supporters"]) for row in rows} == {(None,) * 4}
