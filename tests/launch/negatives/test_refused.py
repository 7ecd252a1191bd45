"""Embeddings, labels and arguments that do not fit together are refused."""

import sys

import numpy as np
import pytest

from crops_jax.errors import InputError
from launch.mine_negatives import mine_negatives
from tests.embedding_folders import at_cosines, write_embeddings
from tests.launch.negatives.labelled import COSINES, LABELS, arguments, write_labels, write_logs


def test_what_does_not_belong_together_is_refused(folders):
    vectors, ids = at_cosines(*COSINES.values()), list(COSINES)
    with pytest.raises(InputError, match=r"--document-embeddings .*vectors of the query tower.*--tower document"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "queries")))
    with pytest.raises(InputError, match=r"--query-embeddings .*vectors of the document tower"):
        mine_negatives(arguments(folders, query_embeddings=str(folders / "documents")))
    write_embeddings(folders / "foreign", ids, vectors, tower="document", encoder="e1")
    with pytest.raises(InputError, match="of different encoders"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "foreign")))
    write_embeddings(folders / "wide", ids, np.eye(7), tower="document")
    with pytest.raises(InputError, match=r"2 numbers and .* of 7"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "wide")))
    write_embeddings(folders / "long", ids, 2 * vectors, tower="document", normalise=False)
    with pytest.raises(InputError, match=r"row 0 .*a vector of length 2, not 1"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "long")))
    write_embeddings(folders / "others", ["x", "y"], vectors[:2], tower="document")
    with pytest.raises(InputError, match="none of the 3 labelled documents"):
        mine_negatives(arguments(folders, document_embeddings=str(folders / "others")))
    logs = write_logs(folders / "logs", documents="abcdef")
    with pytest.raises(InputError, match="1 documents, 'g' the first, are not in table documents"):
        mine_negatives(arguments(folders, logs=str(logs)))
    with pytest.raises(InputError, match="is no size"):
        mine_negatives(arguments(folders, memory_limit="much"))
    with pytest.raises(InputError, match="overlap"):
        mine_negatives(arguments(folders, output=str(folders / "labels"), overwrite=True))
    write_labels(folders / "negatives", LABELS[1:])
    with pytest.raises(InputError, match="no query has both a positive and a vector"):
        mine_negatives(arguments(folders, labels=str(folders / "negatives")))
    assert not (folders / "mined").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "lost"])
def test_a_damaged_shard_is_named(folders, damage):
    file = folders / "documents" / "embeddings-00001-of-00003.npy"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "cut" else content)
    with pytest.raises(InputError, match=r"embeddings-00001-of-00003.npy|shard 1 is damaged"):
        mine_negatives(arguments(folders))
    assert not (folders / "mined").exists()


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"level": 4}, "--level must be that of a negative, 0 to 3, found 4"),
        ({"level": -1}, "--level"),
        ({"skip": 100}, "--skip"),
        ({"exclude_same_text": True}, "--exclude-same-text needs --logs"),
        ({"relevant_grade": 1.0}, "--relevant-grade needs --logs"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(folders, given_, message):
    with pytest.raises(ValueError, match=message):
        arguments(folders, **given_)


def test_scann_is_not_replaced_by_exact_search_where_it_is_missing(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    with pytest.raises(InputError, match=r"--search scann: .*install scann"):
        mine_negatives(arguments(folders, search="scann"))
