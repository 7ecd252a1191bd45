"""Known values: stored records, splits and the order of training depend on each."""

import numpy as np
import pytest

from crops_jax.hashing import (
    document_id_words,
    id_hashes,
    joined,
    pair_hashes,
    seed_hash,
    sha256_bucket,
    sha256_hashes,
    split_by_hash,
    splitmix64,
)
from crops_jax.input_pipeline.document_choice import _draws
from data.records.label_groups import _choice_hashes, group_labels
from tests.data.records.labels import table


def test_splitmix64_of_known_values():
    values = np.array([0, 1, 2**64 - 1], np.uint64)
    assert splitmix64(values).tolist() == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1, 0xE4D971771B652C20]
    assert [int(seed_hash(seed)) for seed in (0, 1, -1, 2**64 + 1)] == splitmix64(values[[0, 1, 2, 1]]).tolist()


def test_chances_of_documents_in_a_batch():
    assert _draws(7, np.array([0, 3]), 2).tolist() == [
        [0xCAA6944B372D94BA, 0x9CD42D1744F0E31E],
        [0x5F69DD0B06E43FD0, 0xA9B609302829F21F],
    ]
    assert _draws(-1, np.array([0]), 1).tolist() == [[0x15005FA6F95E8685]]


def test_chances_of_documents_in_a_record():
    """SplitMix64's mixing without its addition."""
    groups = group_labels(table([("a", "d1", 4), ("a", "d2", 3), ("b", "d1", 5)]))
    chances = [0xCFF5AA6C82C3E364, 0x5831E1999B6C8A91, 0xF801CF93AB80044C]
    assert _choice_hashes(groups, 3).tolist() == chances
    [key] = sha256_hashes(["documents 3"])
    assert pair_hashes(sha256_hashes(["b", "a", "a"]), id_hashes(["d1", "d1", "d2"]), key=key).tolist() == chances


def test_ids_and_texts():
    words = document_id_words(["d1", "d2"])
    assert words.tolist() == [[-53244233, 1981215271], [-1272168849, 308493377]]
    assert joined(words).tolist() == id_hashes(["d1", "d2"]).tolist() == [0xFCD38EB77616F227, 0xB42C3E6F12633C41]
    assert sha256_hashes(["red shoe", "blue"]).tolist() == [0x6E4F1F24B6A78926, 0x16477688C0E00699]


def test_document_id_words_are_never_padding_and_need_no_x64():
    words = document_id_words(f"{i}" for i in range(1000))
    assert words.dtype == np.int32
    assert len({tuple(pair) for pair in words.tolist()}) == 1000
    assert words.any(axis=1).all()


@pytest.mark.parametrize(
    ("digits", "expected"),
    [((0, 8), [6, 2, 8, 0, 6, 3]), ((8, 16), [4, 5, 5, 0, 0, 2]), ((16, 24), [0, 7, 1, 7, 3, 3])],
)
def test_buckets_by_digits_of_a_sha256(digits, expected):
    texts = ["red shoe", "blue", "garden hose", "a", "b", "c"]
    assert [sha256_bucket(text, buckets=10, digits=digits) for text in texts] == expected


def test_the_hash_rule_by_hand():
    # sha256("hello") begins 2cf24dba; 0x2cf24dba = 754077114, bucket 4.
    assert split_by_hash("hello") == "train"
    assert {split_by_hash(str(i)) for i in range(100)} == {"train", "dev", "test"}
    assert 60 < sum(split_by_hash(str(i)) == "train" for i in range(100)) < 95
