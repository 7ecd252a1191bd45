"""A folder of labels and of the embeddings of their queries and documents."""

import pytest

from tests.embedding_folders import at_cosines, write_embeddings
from tests.launch.negatives.labelled import COSINES, write_labels


@pytest.fixture
def folders(tmp_path):
    write_labels(tmp_path / "labels")
    write_embeddings(tmp_path / "queries", ["lamp", "red shoe"], [[0, 1], [1, 0]], tower="query")
    # Not in the order of their ids: ties go by id all the same.
    ids = list(COSINES)[::-1]
    write_embeddings(
        tmp_path / "documents", ids, at_cosines(*(COSINES[i] for i in ids)), tower="document", shard_rows=3
    )
    return tmp_path
