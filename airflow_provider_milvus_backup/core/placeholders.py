"""Vectors as Milvus takes them in a search: the bytes of one ``PlaceholderValue``. Pure functions.

The number of a placeholder's type is that of the field's type in ``schemapb``, but for a text, which full text search takes instead of the
sparse vector that a function would make of it. Numbers are little-endian (``pkg/util/typeutil`` of ``milvus-io/milvus``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

BINARY, FLOAT, FLOAT16, BFLOAT16, SPARSE, INT8 = range(100, 106)
VECTORS = (BINARY, FLOAT, FLOAT16, BFLOAT16, SPARSE, INT8)
TEXT = 21


def placeholder(data_type: int, vector: Any, dim: int = 0) -> tuple[int, bytes]:
    """Return (placeholder type, bytes) of one vector.

    :param data_type: number of the vector field's type
    :param vector: a list of numbers; for a binary vector of bytes (0 to 255); for a sparse one ``{index: value}``, or a text
    :param dim: dimension of the field, 0 where it has none
    :raises ValueError: the vector does not fit the field; the message says why
    """
    if data_type == SPARSE:
        return (TEXT, vector.encode()) if isinstance(vector, str) and vector else (SPARSE, _sparse(vector))
    if not isinstance(vector, (list, tuple)) or not all(type(one) in (int, float) for one in vector):
        raise ValueError(f"it is {_shown(vector)}, not a list of numbers")
    expected = dim // 8 if data_type == BINARY else dim
    if expected and len(vector) != expected:
        raise ValueError(f"it has {len(vector):,} numbers, and the field takes {expected:,}{' bytes' if data_type == BINARY else ''}")
    try:
        return data_type, _ENCODERS[data_type](vector)
    except (struct.error, OverflowError):
        raise ValueError("a number in it is outside the range of the field's type") from None


def _floats(vector: list[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *map(_finite, vector))


def _halves(vector: list[float]) -> bytes:
    return struct.pack(f"<{len(vector)}e", *map(_finite, vector))


def _bfloats(vector: list[float]) -> bytes:
    # The upper half of a float32, which is how a bfloat16 is defined.
    whole = _floats(vector)
    return b"".join(whole[at + 2 : at + 4] for at in range(0, len(whole), 4))


def _bytes(vector: list[int]) -> bytes:
    return struct.pack(f"<{len(vector)}B", *vector)


def _signed(vector: list[int]) -> bytes:
    return struct.pack(f"<{len(vector)}b", *vector)


_ENCODERS: dict[int, Callable[[Any], bytes]] = {BINARY: _bytes, FLOAT: _floats, FLOAT16: _halves, BFLOAT16: _bfloats, INT8: _signed}


def _sparse(vector: Any) -> bytes:
    """Return index and value by turns, by ascending index; keys may be texts, as JSON has them."""
    if not isinstance(vector, Mapping) or not vector:
        raise ValueError(f"it is {_shown(vector)}, neither a dictionary of index and value nor a text")
    try:
        pairs = sorted((int(index), _finite(value)) for index, value in vector.items())
        return b"".join(struct.pack("<If", index, value) for index, value in pairs)
    except (struct.error, OverflowError, TypeError, ValueError):
        raise ValueError(f"it is {_shown(vector)}, whose indices and values are not all numbers of 32 bits") from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise OverflowError
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
