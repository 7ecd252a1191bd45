"""Ids of users as keyed hashes: who has the key can tell that two days saw the same user, and nobody else anything."""

import hashlib

import ibis
import pyarrow as pa

from data.backends.connection import arrow_batches

KEY_BYTES = 32
_USERS_AT_ONCE = 100_000


def hash_users(connection, supports: ibis.Table, key: bytes) -> ibis.Table:
    """The table with the column `user` in the place of `user_id`: keyed BLAKE2b of 128 bits, as hexadecimal digits.

    Each distinct user is hashed once. Two of 10^9 users share a hash with a probability of 2 in 10^21.
    """
    hashes = [pa.table({"user_id": pa.array([], pa.string()), "user": pa.array([], pa.string())})]
    for batch in arrow_batches(connection, supports.select("user_id").distinct(), rows=_USERS_AT_ONCE):
        users = batch.column("user_id")
        digests = (hashlib.blake2b(user.encode(), key=key, digest_size=16).hexdigest() for user in users.to_pylist())
        hashes.append(pa.table({"user_id": users.cast(pa.string()), "user": pa.array(digests, pa.string())}))
    hashed = connection.create_table(ibis.util.gen_name("hashed_users"), pa.concat_tables(hashes), temp=True)
    return supports.join(hashed, "user_id").drop("user_id")
