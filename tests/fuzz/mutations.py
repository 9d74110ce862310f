"""Damage: edits of the bytes of a valid file, and of the values of a valid document, as hypothesis draws them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

WORDS = (
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b"\t", b" ", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\xe3\x80\x80", b"nan", b"-inf", b"1e999", b"-1", b"9" * 30, b"9" * 5000, b"[" * 900, b"{\"a\":" * 900,
    b"&a [*a, *a]", b"&a {<<: *a}", b"!!python/object/apply:os.system [x]", b"!!int x", b"!!timestamp x",
    b"!!set {a}",
    b"null", b"true", b"[]", b"{}", b"\"", b"'", b"|", b"..", b"/", b"s3://", b"%", b": ", b"- ", b"# ", b"---\n",
    b"*a",
    b"2001-01-01", b"0x", b"1_000", b"0b1", b"?", b"<<: 1", b"=",
)  # fmt: skip
"""What readers of text stumble over."""
NUMBERS = (0, 1, 2, 3, 2**31, 10**12, 2**62, *(2**bits - 1 for bits in (7, 8, 15, 16, 31, 32, 63, 64)))
"""What readers of headers stumble over; the low bytes of those that do not fit are taken."""
SCALARS = (
    None, True, False, 0, -1, 1, 2**31, 10**30, 0.5, -0.0, math.inf, math.nan, "", "x", "1", "a/b", "../..", "s3://",
    "\x00",
    "é\u2028", "nan", "~",
)  # fmt: skip

POSITIONS = st.one_of(st.integers(0, 128), st.integers(-128, -1), st.integers(0, 1 << 24))
EDITS = st.one_of(
    st.tuples(st.just("flip"), POSITIONS, st.integers(0, 7)),
    st.tuples(st.just("put"), POSITIONS, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), POSITIONS, st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=16))),
    st.tuples(st.just("number"), POSITIONS, st.sampled_from((1, 2, 4, 8)), st.sampled_from(NUMBERS), st.booleans()),
    st.tuples(st.just("drop"), POSITIONS, st.integers(1, 512)),
    st.tuples(st.just("repeat"), POSITIONS, st.integers(1, 64), st.integers(2, 50)),
    st.tuples(st.just("cut"), POSITIONS),
)
VALUES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(("a", "epoch", "", "1")), inner, max_size=3)
    ),
    max_leaves=6,
)
CHANGES = st.one_of(
    st.tuples(st.just("replace"), st.integers(0, 1 << 16), VALUES),
    st.tuples(st.just("remove"), st.integers(0, 1 << 16)),
    st.tuples(st.just("add"), st.integers(0, 1 << 16), VALUES),
)


def damaged(content: bytes, edits: Sequence[tuple[Any, ...]]) -> bytes:
    """The bytes after some edits. A position is counted from the end when it is negative."""
    data = bytearray(content)
    for kind, position, *details in edits:
        place = position % max(len(data), 1)
        if kind == "flip" and data:
            data[place] ^= 1 << details[0]
        elif kind == "put":
            data[place : place + len(details[0])] = details[0]
        elif kind == "insert":
            data[place:place] = details[0]
        elif kind == "number":
            width, number, is_big = details
            data[place : place + width] = (number % (1 << 8 * width)).to_bytes(width, "big" if is_big else "little")
        elif kind == "drop":
            del data[place : place + details[0]]
        elif kind == "repeat":
            length, times = details
            data[place:place] = data[place : place + length] * times
        elif kind == "cut":
            del data[place:]
    return bytes(data)


def changed(document: Any, changes: Sequence[tuple[Any, ...]]) -> Any:
    """A document of dictionaries and lists after some changes of its values."""
    root = {"": copy.deepcopy(document)}
    for kind, number, *details in changes:
        places = list(_places(root))
        if not places:
            break
        holder, key = places[number % len(places)]
        if kind == "replace":
            holder[key] = copy.deepcopy(details[0])
        elif kind == "remove" and holder is not root:
            del holder[key]
        elif kind == "add":
            inside = holder[key]
            if isinstance(inside, dict):
                inside["added"] = copy.deepcopy(details[0])
            elif isinstance(inside, list):
                inside.append(copy.deepcopy(details[0]))
    return root[""]


def _places(value: Any) -> Any:
    """(holder, key) of every value, the outermost first."""
    waiting = [value]
    while waiting:
        holder = waiting.pop(0)
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
