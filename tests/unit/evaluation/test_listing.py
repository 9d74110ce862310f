"""What is spoken in an evaluation: a file that a user writes, or a list that is made of Kaldi folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.corpus.kaldi import KaldiData, KaldiUtterance, write_kaldi
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.listing import Entry, digest_of, make_list, read_list, why_not, write_list

HEADER = "utt\tprompt_wav\tprompt_text\ttext\n"


def kaldi(folder: Path, speakers: dict[str, int]) -> str:
    """A folder of speakers with their numbers of utterances."""
    utterances = [
        KaldiUtterance(
            f"{speaker}_{number}", f"/speech/{speaker}_{number}.wav", f"Text {number} of {speaker}.", speaker
        )
        for speaker, count in speakers.items()
        for number in range(count)
    ]
    write_kaldi(KaldiData(utterances), str(folder))
    return str(folder)


def test_each_text_is_spoken_with_another_utterance_of_its_speaker(tmp_path: Path) -> None:
    entries = make_list([kaldi(tmp_path, {"ann": 3, "bob": 2})], seed=0)
    assert [entry.utt for entry in entries] == ["ann_0", "ann_1", "ann_2", "bob_0", "bob_1"]
    for entry in entries:
        assert entry.wav == f"/speech/{entry.utt}.wav"
        assert entry.prompt_wav.startswith(f"/speech/{entry.spk}_")
        assert entry.prompt_wav != entry.wav
        assert entry.prompt_text != entry.text


def test_the_seed_decides_the_prompts_and_the_choice(tmp_path: Path) -> None:
    folder = kaldi(tmp_path, {"ann": 9, "bob": 9})
    assert make_list([folder], seed=1, count=5) == make_list([folder], seed=1, count=5)
    assert len(make_list([folder], seed=1, count=5)) == 5
    assert make_list([folder], seed=1) != make_list([folder], seed=2)


def test_a_speaker_with_one_utterance_has_no_prompt(tmp_path: Path) -> None:
    assert {entry.spk for entry in make_list([kaldi(tmp_path, {"ann": 2, "bob": 1})], seed=0)} == {"ann"}
    with pytest.raises(CosyFlowError, match="no speaker has two utterances"):
        make_list([kaldi(tmp_path / "one", {"bob": 1})], seed=0)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    entries = [Entry("a", "/p.wav", "In it.", "To speak.", "/a.wav", "ann"), Entry("b", "/p.wav", "In it.", "Again 2.")]
    write_list(entries, str(tmp_path / "list.tsv"))
    assert read_list(str(tmp_path / "list.tsv")) == entries


def test_a_relative_recording_lies_next_to_the_list(tmp_path: Path) -> None:
    (tmp_path / "p.wav").write_bytes(b"")
    (tmp_path / "list.tsv").write_text(HEADER + "a\tp.wav\tIn it.\tTo speak.\n")
    assert read_list(str(tmp_path / "list.tsv"))[0].prompt_wav == str(tmp_path / "p.wav")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"list\.tsv:1: the header is empty"),
        ("utt\ttext\n", r"list\.tsv:1: the header is utt text, write utt prompt_wav prompt_text text"),
        (HEADER, "names no utterance"),
        (HEADER + "a\tp.wav\tIn it.\n", r"list\.tsv:2: 3 columns, the header has 4"),
        (HEADER + "a\tp.wav\tIn it.\t \n", r"list\.tsv:2: text: the text is empty"),
        (HEADER + "a\tp.wav\t\tSpeak.\n", r"list\.tsv:2: prompt_text: the text is empty"),
        (HEADER + "a\tp.wav\tIn it.\tOne.\na\tp.wav\tIn it.\tTwo.\n", r"list\.tsv:3: a is there already"),
        (HEADER + "a\t\tIn it.\tOne.\n", r"list\.tsv:2: prompt_wav is empty"),
        (HEADER + f"a\tp.wav\tIn it.\t{'long ' * 2000}\n", r"list\.tsv:2: text: the text has 9,999 characters"),
        (HEADER + "a\tp.wav\tIn it.\t\U0001f600\U0001f44d\n", r"list\.tsv:2: text: .* has neither letter nor digit"),
    ],
)
def test_a_line_that_cannot_be_spoken_is_named(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "list.tsv").write_text(lines)
    with pytest.raises(CosyFlowError, match=message):
        read_list(str(tmp_path / "list.tsv"))


@pytest.mark.parametrize("text", ["Hello \U0001f600!", "Dr. Li pays $20 on 3/4.", "你好", "7"])
def test_emoji_digits_and_abbreviations_among_words_are_no_problem(text: str) -> None:
    assert why_not(text) is None


@given(st.permutations(["digest of p", "digest of q", "digest of r"]))
def test_a_list_is_known_by_the_content_of_its_recordings(contents: list[str]) -> None:
    """Where they lie does not count."""
    here = [Entry("a", "/here/p", "P.", "A.", "/here/a"), Entry("b", "/here/q", "Q.", "B.")]
    there = [Entry("a", "/there/p", "P.", "A.", "/there/a"), Entry("b", "/there/q", "Q.", "B.")]
    first, second, third = contents
    digest = digest_of(here, {"/here/p": first, "/here/q": second, "/here/a": third})
    assert digest == digest_of(there, {"/there/p": first, "/there/q": second, "/there/a": third})
    assert digest != digest_of(here, {"/here/p": second, "/here/q": first, "/here/a": third})
    assert digest != digest_of(here[:1], {"/here/p": first, "/here/a": third})
