"""Kaldi files are read as they were written, and what is wrong in them is named by file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.corpus.kaldi import KaldiData, KaldiUtterance, read_kaldi, write_kaldi
from cosyflow.errors import CosyFlowError

WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
PHRASES = st.lists(WORDS, min_size=1, max_size=4).map("  ".join)


@pytest.mark.medium
@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(WORDS, PHRASES, PHRASES, WORDS), min_size=1, max_size=6, unique_by=lambda row: row[0]),
    instruct=st.none() | PHRASES,
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str, str]], instruct: str | None
) -> None:
    directory = str(tmp_path_factory.mktemp("kaldi"))
    data = KaldiData([KaldiUtterance(utt, f"/data/{wav}.wav", text, spk, instruct) for utt, wav, text, spk in rows])
    write_kaldi(data, directory)
    assert read_kaldi(directory) == data


def test_the_official_form_is_read(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_bytes("\ufeffu2\t/a b/c.wav\r\nu1 s3://bucket/x.wav\r\n\r\n".encode())
    (tmp_path / "text").write_text("u1 One  two.\nu2 \n")
    (tmp_path / "utt2spk").write_text("u1 s\nu2 s\n")
    (tmp_path / "spk2utt").write_text("s u2 u1\n")
    assert read_kaldi(str(tmp_path)).utterances == [
        KaldiUtterance("u2", "/a b/c.wav", "", "s"),
        KaldiUtterance("u1", "s3://bucket/x.wav", "One  two.", "s"),
    ]


@pytest.mark.parametrize(
    ("utterance", "message"),
    [
        (KaldiUtterance("a b", "/x", "t", "s"), r"wav\.scp: 'a b'"),
        (KaldiUtterance("a", "/x", "two\nlines", "s"), r"text: 'a' with value 'two\\nlines'"),
        (KaldiUtterance("a", "/x", "t", "two words"), "utt2spk: the speaker of a has a space"),
        (KaldiUtterance("a", "sox x.mp3 -t wav - |", "t", "s"), r"wav\.scp: a is the output of a command"),
        (KaldiUtterance("a\u3000b", "/x", "t", "s"), r"wav\.scp: 'a\\u3000b' is no name of an utterance"),
        (KaldiUtterance("a", "/x", "t", "s\xa0"), r"utt2spk: the speaker of a has a blank \(U\+00A0\)"),
        (KaldiUtterance("\ufeffa", "/x", "t", "s"), r"byte order mark"),
        (KaldiUtterance("a", "/\udce9.wav", "t", "s"), r"wav\.scp: 'a' with value '/\\udce9\.wav'"),
        (KaldiUtterance("a", "/x ", "t", "s"), r"wav\.scp: 'a' with value '/x '"),
    ],
)
def test_what_does_not_fit_into_a_line_is_not_written(tmp_path: Path, utterance: KaldiUtterance, message: str) -> None:
    with pytest.raises(CosyFlowError, match=message):
        write_kaldi(KaldiData([utterance]), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
