"""Training records: one record as a tf.train.Example, and the sharded TFRecord files that hold them."""

from crops_jax.records.query_record import QueryRecord, decode_record, encode_record
from crops_jax.records.shards import (
    ALL_DOCUMENTS,
    EncodedRecords,
    RecordSource,
    add_split,
    encode_records,
    shard_bounds,
    splits,
    write_records,
    write_shard,
)

__all__ = [
    "ALL_DOCUMENTS",
    "EncodedRecords",
    "QueryRecord",
    "RecordSource",
    "add_split",
    "decode_record",
    "encode_record",
    "encode_records",
    "shard_bounds",
    "splits",
    "write_records",
    "write_shard",
]
