import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from crops_jax.errors import InputError
from crops_jax.records.tfrecord import TFRecordFiles, frame, index_path, masked_crc32c, read_index, scan, write_index

DATA = [b"", b"a", b"some more bytes", bytes(range(256))]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(b"".join(map(frame, DATA)))
    write_index(path, scan(path))
    return path


def test_crc32c_has_the_check_value_of_its_standard_masked_as_tensorflow_does():
    crc = 0xE3069283  # RFC 3720, B.4: of "123456789"
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_frame_is_what_tensorflow_writes():
    # tf.io.TFRecordWriter of the record b"crops", by TensorFlow 2.20.
    assert frame(b"crops").hex() == "0500000000000000eab2043e63726f70732b6372c8"


def test_records_are_read_in_any_order_and_across_files(file, tmp_path):
    other = tmp_path / "y.tfrecord"
    other.write_bytes(frame(b"last"))
    files = TFRecordFiles([file, other], counts=[4, 1])
    assert [files[i] for i in (4, 2, 0, 3, 1)] == [b"last", DATA[2], DATA[0], DATA[3], DATA[1]]
    assert files.locate(4) == (other, 0)
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            files[outside]


def test_files_without_records_are_skipped_over(file, tmp_path):
    empty = tmp_path / "empty.tfrecord"
    empty.write_bytes(b"")
    assert TFRecordFiles([empty, file], counts=[0, 4])[1] == DATA[1]


def test_an_index_is_used_only_where_it_fits(file):
    offsets = scan(file)
    np.testing.assert_array_equal(read_index(file), offsets)
    content = index_path(file).read_bytes()
    for broken in (b"", content[:-1], content[:20] + bytes([content[20] ^ 1]) + content[21:]):
        index_path(file).write_bytes(broken)
        assert read_index(file) is None
        assert TFRecordFiles([file], counts=[4])[3] == DATA[3]
    index_path(file).unlink()
    assert TFRecordFiles([file], counts=[4])[3] == DATA[3]


def test_a_stale_index_of_a_file_of_the_same_size_is_replaced(file):
    swapped = [DATA[1], DATA[0], DATA[3], DATA[2]]
    file.write_bytes(b"".join(map(frame, swapped)))
    files = TFRecordFiles([file], counts=[4])
    assert [files[i] for i in range(4)] == swapped


def test_any_flipped_byte_is_an_error_that_names_file_and_record(file):
    content, offsets = file.read_bytes(), scan(file)
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        record = int(np.searchsorted(offsets, place, side="right")) - 1
        with pytest.raises(InputError, match=rf"x\.tfrecord.* record {record}\b"):
            [TFRecordFiles([file], counts=[4])[i] for i in range(4)]


@pytest.mark.parametrize("indexed", [True, False])
def test_a_truncated_file_is_an_error_that_names_file_and_record(file, indexed):
    content, offsets = file.read_bytes(), scan(file)
    if not indexed:
        index_path(file).unlink()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        record = int(np.searchsorted(offsets, size, side="right")) - 1
        with pytest.raises(InputError, match=rf"x\.tfrecord.* record {record}\b"):
            TFRecordFiles([file], counts=[4])


def test_a_file_cut_while_it_is_read_is_an_error(file):
    files = TFRecordFiles([file], counts=[4])
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"x\.tfrecord: record 3 is cut off"):
        files[3]


def test_missing_files_and_wrong_counts_are_errors(file, tmp_path):
    with pytest.raises(InputError, match=r"z\.tfrecord: no such file, it should hold records 4 to 5"):
        TFRecordFiles([file, tmp_path / "z.tfrecord"], counts=[4, 2])
    for count in (3, 5):
        with pytest.raises(InputError, match=rf"x\.tfrecord: 4 records found, {count} expected"):
            TFRecordFiles([file], counts=[count])


def test_pickled_files_read_on(file):
    assert pickle.loads(pickle.dumps(TFRecordFiles([file], counts=[4])))[3] == DATA[3]


def test_more_files_than_may_be_open_are_read_by_several_threads(tmp_path):
    paths = [tmp_path / f"{i}.tfrecord" for i in range(8)]
    for i, path in enumerate(paths):
        path.write_bytes(frame(bytes([i])) * 4)
    files = TFRecordFiles(paths, counts=[4] * 8, open_files=2)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(32), 8)).tolist()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: files[i], order)) == [bytes([i // 4]) for i in order]
