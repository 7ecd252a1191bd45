"""One training record and its form as a tf.train.Example.

| feature | int32, unless named otherwise | content |
| --- | --- | --- |
| query_tokens | [tokens] | the query |
| documents | [documents, 4] | each document with text: id (two words), level, number of tokens |
| document_tokens | [tokens] | the tokens of these documents, one document after the other |
| labelled | [labelled, 3] | every labelled document: id (two words), level |
| labelled_scores | [labelled], float32 | only in records with scores: theta of each of these documents, or NaN |

Each feature is one bytes value of packed little-endian numbers (`tfds.features.Tensor` with encoding "bytes"), which
parses several times faster than Int64List and takes half the space. The features are few for the same reason. Tokens of
documents are joined because tfds cannot declare ragged lists of packed values.

This module declares the message tf.train.Example, so that TFRecords need no TensorFlow. The declaration is in its own
descriptor pool, so that a process that also loads TensorFlow keeps TensorFlow's declaration.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from jaxtyping import Float32, Int32

from crops_jax.errors import InputError

GREATEST_LEVEL = 5
FEATURE_COLUMNS: Mapping[str, int] = {"query_tokens": 1, "documents": 4, "document_tokens": 1, "labelled": 3}
"""The int32 features of an example and their numbers of columns. The number of rows differs from record to record."""

SCORES = "labelled_scores"
"""The feature of float32 numbers that records with scores have in addition."""

_INT32 = np.iinfo(np.int32)


class QueryRecord(NamedTuple):
    """A query, its documents whose text can enter a batch, and the ids of all its labelled documents.

    Ids are 64-bit hashes as two words (`crops_jax.hashing.document_id_words`). Levels are those of
    `crops_jax.labels.Level`. Lists of tokens include the tokenizer's special tokens and have no padding. A score is the
    probability of the relevance discriminator (theta), in [0, 1], that a labelled document answers the query; NaN if it
    has none. labelled_scores is None in records without scores.
    """

    query_tokens: Int32[np.ndarray, "tokens"]
    document_ids: Int32[np.ndarray, "documents 2"]
    document_levels: Int32[np.ndarray, "documents"]
    document_tokens: tuple[Int32[np.ndarray, "tokens_of_it"], ...]
    labelled_ids: Int32[np.ndarray, "labelled 2"]
    labelled_levels: Int32[np.ndarray, "labelled"]
    labelled_scores: Float32[np.ndarray, "labelled"] | None = None


def encode_record(record: QueryRecord) -> bytes:
    """Returns a record as a serialised tf.train.Example; the same record always gives the same bytes.

    Raises InputError when a field is not of the form that `QueryRecord` declares; the message names the field.
    """
    return serialise(feature_values(record))


def decode_record(data: bytes) -> QueryRecord:
    """Returns the record of a serialised tf.train.Example, with read-only arrays.

    Raises InputError when `data` is no such record; the message names the wrong feature.
    """
    try:
        features = Example.FromString(data).features.feature
    except DecodeError as error:
        raise InputError("not a tf.train.Example") from error
    query, documents, joined, labelled = (_unpack(features, name) for name in FEATURE_COLUMNS)
    documents, labelled = documents.reshape(-1, 4), labelled.reshape(-1, 3)
    tokens, start = [], 0
    for *_, level, count in documents.tolist():
        if count < 0 or not 0 <= level <= GREATEST_LEVEL:
            raise InputError(f"feature documents: level {level} with {count} tokens")
        tokens.append(joined[start : start + count])
        start += count
    if start != len(joined):
        raise InputError(f"feature document_tokens: {len(joined)} tokens, {start} expected")
    _check_range("query_tokens", query, _INT32.max)
    _check_range("document_tokens", joined, _INT32.max)
    _check_range("labelled", labelled[:, 2], GREATEST_LEVEL)
    scores = _unpack_scores(features) if SCORES in features else None
    if scores is not None:
        _check_scores(scores, labelled=len(labelled))
    return QueryRecord(
        query_tokens=query,
        document_ids=documents[:, :2],
        document_levels=documents[:, 2],
        document_tokens=tuple(tokens),
        labelled_ids=labelled[:, :2],
        labelled_levels=labelled[:, 2],
        labelled_scores=scores,
    )


def feature_values(record: QueryRecord) -> dict[str, np.ndarray]:
    """Returns the features of a record by name. Raises InputError, with the field's name, when a field is wrong."""
    query = _int32("query_tokens", record.query_tokens, 1)
    tokens = [_int32("document_tokens", text, 1) for text in record.document_tokens]
    document_ids = _int32("document_ids", record.document_ids, 2)
    document_levels = _int32("document_levels", record.document_levels, 1)
    labelled_ids = _int32("labelled_ids", record.labelled_ids, 2)
    labelled_levels = _int32("labelled_levels", record.labelled_levels, 1)
    if not len(document_ids) == len(document_levels) == len(tokens):
        raise InputError(
            f"{len(document_ids)} document_ids, {len(document_levels)} document_levels and {len(tokens)} lists of "
            "document_tokens are not of one length"
        )
    if len(labelled_ids) != len(labelled_levels):
        raise InputError(
            f"{len(labelled_ids)} labelled_ids and {len(labelled_levels)} labelled_levels are not of one length"
        )
    joined = np.concatenate([np.zeros(0, np.int32), *tokens])
    _check_range("query_tokens", query, _INT32.max)
    _check_range("document_tokens", joined, _INT32.max)
    _check_range("document_levels", document_levels, GREATEST_LEVEL)
    _check_range("labelled_levels", labelled_levels, GREATEST_LEVEL)
    counts = np.array([len(text) for text in tokens], np.int32)
    values = {
        "query_tokens": query,
        "documents": np.column_stack([document_ids, document_levels, counts]),
        "document_tokens": joined,
        "labelled": np.column_stack([labelled_ids, labelled_levels]),
    }
    if record.labelled_scores is None:
        return values
    scores = np.asarray(record.labelled_scores, np.float32)
    _check_scores(scores, labelled=len(labelled_ids))
    return {**values, SCORES: np.where(np.isnan(scores), np.float32(np.nan), scores)}  # all NaN have the same bits


def serialise(values: Mapping[str, np.ndarray]) -> bytes:
    """Returns features as a serialised tf.train.Example, in the order of their names."""
    example = Example()
    features = example.features.feature
    for name, array in values.items():
        packed = array.astype("<f4" if name == SCORES else "<i4", copy=False)
        features[name].bytes_list.value.append(packed.tobytes())
    return example.SerializeToString(deterministic=True)


def _unpack(features: Mapping, name: str) -> Int32[np.ndarray, "values"]:
    packed = features[name].bytes_list.value
    if len(packed) != 1 or len(packed[0]) % (4 * FEATURE_COLUMNS[name]):
        raise InputError(f"feature {name} is not one value of packed int32 in {FEATURE_COLUMNS[name]} columns")
    return np.frombuffer(packed[0], "<i4")


def _unpack_scores(features: Mapping) -> Float32[np.ndarray, "values"]:
    packed = features[SCORES].bytes_list.value
    if len(packed) != 1 or len(packed[0]) % 4:
        raise InputError(f"feature {SCORES} is not one value of packed float32")
    return np.frombuffer(packed[0], "<f4")


def _check_scores(scores: Float32[np.ndarray, "..."], *, labelled: int) -> None:
    if scores.shape != (labelled,):
        raise InputError(f"{SCORES} must have one number for each of {labelled} labelled_ids, found {scores.shape}")
    if ((scores < 0) | (scores > 1)).any():
        raise InputError(f"{SCORES} must lie in [0, 1] or be NaN, found {np.nanmin(scores)} to {np.nanmax(scores)}")


def _int32(name: str, value: npt.ArrayLike, axes: int) -> Int32[np.ndarray, "..."]:
    array = np.asarray(value)
    shape = (len(array), 2)[:axes] if array.ndim else ()
    if not array.size and array.ndim:
        return np.zeros(shape, np.int32)
    if array.shape != shape or array.dtype.kind not in "iu":
        raise InputError(f"{name} must be integers [n{', 2' * (axes - 1)}], found {array.dtype} of shape {array.shape}")
    if array.dtype != np.int32 and (array.min() < _INT32.min or array.max() > _INT32.max):
        raise InputError(f"{name} must fit 32 bits, found values from {array.min()} to {array.max()}")
    return array.astype(np.int32, copy=False)


def _check_range(name: str, values: Int32[np.ndarray, "values"], greatest: int) -> None:
    # As unsigned numbers, negative values are the greatest, so that one pass checks both ends.
    if values.size and values.view(np.uint32).max() > greatest:
        raise InputError(f"{name} must lie in [0, {greatest}], found {values.min()} to {values.max()}")


_FIELD = descriptor_pb2.FieldDescriptorProto


_PACKAGE = "tensorflow"


def _field(name: str, number: int, kind: Any, **options: Any) -> descriptor_pb2.FieldDescriptorProto:
    if isinstance(kind, str):
        options |= {"type_name": f".{_PACKAGE}.{kind}"}
        kind = _FIELD.TYPE_MESSAGE
    return _FIELD(name=name, number=number, type=kind, **{"label": _FIELD.LABEL_OPTIONAL, **options})


def _values(name: str, kind: int) -> descriptor_pb2.DescriptorProto:
    field = _field("value", 1, kind, label=_FIELD.LABEL_REPEATED)
    return descriptor_pb2.DescriptorProto(name=name, field=[field])


def _declaration() -> descriptor_pb2.FileDescriptorProto:
    message = descriptor_pb2.DescriptorProto
    feature = message(
        name="Feature",
        field=[
            _field("bytes_list", 1, "BytesList", oneof_index=0),
            _field("float_list", 2, "FloatList", oneof_index=0),
            _field("int64_list", 3, "Int64List", oneof_index=0),
        ],
        oneof_decl=[descriptor_pb2.OneofDescriptorProto(name="kind")],
    )
    entry = message(
        name="FeatureEntry",
        field=[_field("key", 1, _FIELD.TYPE_STRING), _field("value", 2, "Feature")],
        options=descriptor_pb2.MessageOptions(map_entry=True),
    )
    features = message(
        name="Features",
        field=[_field("feature", 1, "Features.FeatureEntry", label=_FIELD.LABEL_REPEATED)],
        nested_type=[entry],
    )
    return descriptor_pb2.FileDescriptorProto(
        name="crops_jax/tf_example.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[
            _values("BytesList", _FIELD.TYPE_BYTES),
            _values("FloatList", _FIELD.TYPE_FLOAT),
            _values("Int64List", _FIELD.TYPE_INT64),
            feature,
            features,
            message(name="Example", field=[_field("features", 1, "Features")]),
        ],
    )


def _message_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_declaration().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


Example = _message_class()
"""The class of the message tf.train.Example."""
