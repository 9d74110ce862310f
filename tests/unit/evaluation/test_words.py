"""Texts are compared as Whisper's authors do: what is written in several ways is the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.evaluation.words import errors, normalisation, words_of


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("Mr. Smith, it's 21 miles!", "mister smith it is twenty one miles"),
        ("one two three", "1, 2, 3"),
        ("one two three", "123"),
        ("Hello \U0001f600", "hello"),
        ("I have $20", "i have twenty dollars"),
    ],
)
def test_equal_speech_has_no_errors(said: str, heard: str) -> None:
    found = errors(said, heard)
    assert (found.words, found.characters) == (0, 0)


def test_errors_are_the_least_number_of_changes() -> None:
    found = errors("the cat sat on the mat", "the cat sat the big mat")
    assert (found.words, found.of_words) == (2, 6)
    assert (errors("a b c", "").words, errors("cat", "cut").characters) == (3, 1)


def test_languages_without_spaces_are_compared_by_characters() -> None:
    assert words_of("你好，世界", "zh") == ["你", "好", "世", "界"]
    assert words_of("Grüße, Welt!", "de") == ["grüße", "welt"]


def test_the_report_can_say_what_normalised() -> None:
    found = normalisation("en")
    assert found["library"] == "transformers"
    assert found["version"][0].isdigit()


@given(st.lists(st.sampled_from(["cat", "dog", "seven", "sky"])), st.lists(st.sampled_from(["cat", "dog", "sun"])))
def test_no_more_errors_than_the_longer_text_has_words(said: list[str], heard: list[str]) -> None:
    found = errors(" ".join(said), " ".join(heard))
    assert abs(len(said) - len(heard)) <= found.words <= max(len(said), len(heard))
    assert found.of_words == len(said)
