"""Packs the values of a metric, one for each query, into text that is small enough to be committed.

A metric takes few different values, because most queries have few relevant documents. The text therefore holds the
different values once, as float32, and for each query the position of its value. Both are compressed together by zlib
and written in base64:

    count of different values (uint32) | the values (float32 each) | low bytes of the positions | high bytes

The numbers are little-endian. The high bytes are absent for at most 256 different values. The bytes of equal weight
stand together, because they are alike. Packing is lossless for float32.
"""

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np

_ONE_BYTE = 256
_MOST = 65_536


def pack(values: Sequence[float]) -> str:
    """Returns the text of values, which are rounded to float32.

    Raises ValueError for more than 65,536 different values.
    """
    different, positions = np.unique(np.asarray(values, "<f4"), return_inverse=True)
    if len(different) > _MOST:
        raise ValueError(f"at most {_MOST:,} different values can be packed, found {len(different):,}")
    planes = [positions % _ONE_BYTE]
    if len(different) > _ONE_BYTE:
        planes.append(positions // _ONE_BYTE)
    content = np.uint32(len(different)).astype("<u4").tobytes() + different.tobytes()
    content += b"".join(plane.astype(np.uint8).tobytes() for plane in planes)
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def unpack(text: str) -> tuple[float, ...]:
    """Returns the values of a text, each a float32 number. Raises ValueError when the text is damaged."""
    try:
        content = zlib.decompress(base64.b64decode(text, validate=True))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"packed values are damaged ({error})") from error
    count = int(np.frombuffer(content[:4].ljust(4, b"\0"), "<u4")[0])
    start = 4 + 4 * count
    planes = 2 if count > _ONE_BYTE else 1
    if len(content) < start or (len(content) - start) % planes:
        raise ValueError("packed values are damaged (their length does not fit their number of different values)")
    different = np.frombuffer(content[4:start], "<f4")
    bytes_of = np.frombuffer(content[start:], np.uint8).reshape(planes, -1).astype(np.int64)
    positions = sum(plane * _ONE_BYTE**place for place, plane in enumerate(bytes_of))
    if np.size(positions) and np.max(positions) >= count:
        raise ValueError("packed values are damaged (a position lies beyond the different values)")
    return tuple(different[positions].astype(np.float64).tolist())
