"""Texts as words that can be compared, and how far two differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, cast

ENGLISH = "en"
WITHOUT_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
"""Languages whose words have no spaces between them: each character counts as a word."""
ONE = {"one": "1"}
"""The normaliser writes a 1 that stands alone as a word, and no other digit."""


@dataclass(frozen=True)
class Errors:
    """How far what was heard is from what should be said: words and characters that differ, of how many."""

    words: int
    of_words: int
    characters: int
    of_characters: int


def normalisation(language: str) -> dict[str, str]:
    """What normalises texts, for the report."""
    kind = "EnglishTextNormalizer" if language == ENGLISH else "BasicTextNormalizer"
    return {"library": "transformers", "version": version("transformers"), "normaliser": kind, "language": language}


def words_of(text: str, language: str = ENGLISH) -> list[str]:
    """The words of a text, as Whisper's authors compare them: numbers in digits, abbreviations written out.

    Digits stand alone, since speech does not say how they are grouped.
    """
    plain = _normaliser(language)(text)
    spaced = "".join(f" {character} " if character.isdigit() else character for character in plain)
    words = spaced.split()
    return [ONE.get(word, word) for word in words] if language == ENGLISH else words


def errors(said: str, heard: str, language: str = ENGLISH) -> Errors:
    """Compares what should be said with what was heard, by the least number of changes."""
    from rapidfuzz.distance import Levenshtein

    wanted, found = words_of(said, language), words_of(heard, language)
    letters, found_letters = "".join(wanted), "".join(found)
    return Errors(
        Levenshtein.distance(wanted, found),
        len(wanted),
        Levenshtein.distance(letters, found_letters),
        len(letters),
    )


@lru_cache(maxsize=4)
def _normaliser(language: str) -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if language == ENGLISH:
        english: Any = EnglishTextNormalizer
        return cast(Callable[[str], str], english({}))
    basic: Any = BasicTextNormalizer
    return cast(Callable[[str], str], basic(split_letters=language in WITHOUT_SPACES))
