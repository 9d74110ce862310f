"""Our conversions give what pyarrow's own do, without importing pandas."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.dataset import arrow
from cosyflow.dataset.arrow import list_type, ragged, to_arrow
from cosyflow.errors import CosyFlowError

rows = st.lists(st.none() | st.lists(st.integers(-(2**62), 2**62)))


@given(rows)
def test_lists(values):
    kind = list_type(pa.int64())
    column = to_arrow(values, kind)
    assert column.equals(pa.chunked_array([pa.array(values, kind)]))
    flat, offsets = ragged(column, pa.int64())
    assert [flat[start:end].tolist() for start, end in itertools.pairwise(offsets)] == [row or [] for row in values]


@given(st.lists(st.text()), st.lists(st.binary()))
def test_text_and_bytes(texts, contents):
    assert to_arrow(texts, pa.string()).to_pylist() == texts
    assert to_arrow(contents, pa.binary()).to_pylist() == contents


def test_bytes_beyond_the_size_of_one_array_go_into_several(monkeypatch):
    monkeypatch.setattr(arrow, "LARGEST_ARRAY_BYTES", 5)
    column = to_arrow([b"123", b"45", b"6", b"78901"], pa.binary())
    assert column.to_pylist() == [b"123", b"45", b"6", b"78901"]
    assert column.num_chunks == 3


def test_a_slice_of_a_column_is_read_as_such():
    column = to_arrow([[1, 2], [3], None, [4, 5]], list_type(pa.int64()))
    flat, offsets = ragged(column.slice(1, 3), pa.int64())
    assert flat.tolist() == [3, 4, 5]
    assert offsets.tolist() == [0, 1, 1, 3]


def test_other_number_types_are_converted():
    column = pa.chunked_array([pa.array([[0.5], [1.5]], pa.list_(pa.float32()))])
    flat, _ = ragged(column, pa.float64())
    assert flat.tolist() == [0.5, 1.5]
    assert flat.dtype == np.float64


@pytest.mark.parametrize("column", [pa.array(["text"]), pa.array([[1, None]])], ids=["text", "null in a list"])
def test_what_is_no_list_of_numbers_is_an_error(column):
    with pytest.raises(CosyFlowError, match="column of lists of int64"):
        ragged(pa.chunked_array([column]), pa.int64())


def test_pandas_stays_away():
    program = """
import sys, pyarrow as pa
from cosyflow.dataset.arrow import list_type, ragged, to_arrow
ragged(to_arrow([[1], None], list_type(pa.int64())), pa.int64())
to_arrow(["text"], pa.string())
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
