"""Between Python, numpy and Arrow by way of their buffers.

pyarrow's own conversions import pandas, which costs a process that only writes or reads a few columns two seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from cosyflow.errors import CosyFlowError

NUMBER_TYPES: dict[pa.DataType, np.dtype[Any]] = {
    pa.int64(): np.dtype(np.int64),
    pa.float64(): np.dtype(np.float64),
    pa.int32(): np.dtype(np.int32),
    pa.float32(): np.dtype(np.float32),
}
LARGEST_ARRAY_BYTES = 2**31 - 1  # offsets of these Arrow types have 32 bits


def list_type(item: pa.DataType) -> pa.DataType:
    """A list as parquet files have it, whose items are named `element`."""
    return pa.list_(pa.field("element", item))


def to_arrow(values: Sequence[Any], kind: pa.DataType) -> pa.ChunkedArray:
    """A column of text, bytes or lists of numbers.

    Args:
        values: str, bytes, or sequences of numbers and None.
        kind: pa.string(), pa.binary(), or `list_type` of one of NUMBER_TYPES.
    """
    if pa.types.is_list(kind):
        return pa.chunked_array([_list_array(values, kind)], kind)
    parts = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    pieces: list[list[bytes]] = [[]]
    room = LARGEST_ARRAY_BYTES
    for part in parts:
        if len(part) > room:
            pieces.append([])
            room = LARGEST_ARRAY_BYTES
        pieces[-1].append(part)
        room -= len(part)
    return pa.chunked_array([_bytes_array(piece, kind) for piece in pieces], kind)


def _bytes_array(parts: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    offsets = np.fromiter(accumulate(map(len, parts), initial=0), np.int32, len(parts) + 1)
    return pa.Array.from_buffers(kind, len(parts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))])


def _list_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    arrays = [np.asarray([] if value is None else value, NUMBER_TYPES[kind.value_type]) for value in values]
    offsets = np.fromiter(accumulate(map(len, arrays), initial=0), np.int32, len(arrays) + 1)
    flat = np.concatenate(arrays) if arrays else np.zeros(0, NUMBER_TYPES[kind.value_type])
    items = pa.Array.from_buffers(kind.value_type, len(flat), [None, pa.py_buffer(flat)])
    present = np.packbits(np.array([value is not None for value in values], bool), bitorder="little")
    return pa.Array.from_buffers(kind, len(arrays), [pa.py_buffer(present), pa.py_buffer(offsets)], children=[items])


def ragged(column: pa.ChunkedArray, item: pa.DataType) -> tuple[np.ndarray, np.ndarray]:
    """A list column as (values of all rows one after the other, offsets: int64 [rows + 1]); a null is an empty list.

    Raises:
        CosyFlowError: the column does not hold lists of numbers.
    """
    try:
        array = column.cast(list_type(item)).combine_chunks()
    except pa.ArrowException as error:
        raise CosyFlowError(f"not a column of lists of {item} but of {column.type}") from error
    if array.values.null_count:
        raise CosyFlowError(f"a column of lists of {item} with a null in a list")
    offsets = _view(array.offsets).astype(np.int64)
    return _view(array.values)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _view(array: pa.Array) -> np.ndarray:
    """The numbers of an array without nulls."""
    dtype = NUMBER_TYPES[array.type]
    if not len(array):
        return np.zeros(0, dtype)
    numbers: np.ndarray = np.frombuffer(array.buffers()[1], dtype)
    return numbers[array.offset : array.offset + len(array)]
