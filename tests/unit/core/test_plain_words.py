"""Names, messages and documentation are in the field's English: phrases that only we would understand are not used."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.packages import CHECKOUT

CODE = ("cosyflow", "pipelines", "components", "images")
PRIVATE = re.compile(
    r"\b(hand(s|ed|ing)?( it| them)? on|away|left alone|leaves? (it|them) alone|beside|so many|mend(s|ed|ing)?"
    r"|tells?|told|telling)\b",
    re.IGNORECASE,
)
"""Say: passes or reuses, unreachable or removes, unchanged, next to or in addition to, a number of, corrects, says."""
SPOKEN = {"cosyflow/standins/sentences.py", "cosyflow/standins/text_models.py"}
"""What the demo's voices read aloud."""
WORDS = (tokenize.NAME, tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))


def documents() -> list[Path]:
    return [*sorted((CHECKOUT / "docs").glob("*.md")), *sorted(CHECKOUT.glob("*.md"))]


def words_of(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of names, texts and comments with their numbers; `tell` of a stream is Python's."""
    with file.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type in WORDS and token.string != "tell":
                for number, line in enumerate(token.string.splitlines(), start=token.start[0]):
                    yield number, line.replace("_", " ")


def private_phrases(file: Path) -> list[str]:
    if file.suffix == ".md":
        lines: Iterator[tuple[int, str]] = iter(enumerate(file.read_text(encoding="utf-8").splitlines(), start=1))
    else:
        lines = words_of(file)
    name = file.relative_to(CHECKOUT) if file.is_relative_to(CHECKOUT) else file.name
    return [f"{name}:{number}: {found[0]}" for number, line in lines for found in PRIVATE.finditer(line)]


@pytest.mark.medium
@pytest.mark.parametrize("package", CODE)
def test_code_uses_plain_words(package: str) -> None:
    files = [file for file in (CHECKOUT / package).rglob("*.py") if str(file.relative_to(CHECKOUT)) not in SPOKEN]
    assert files
    assert [phrase for file in sorted(files) for phrase in private_phrases(file)] == []


@pytest.mark.parametrize("file", documents(), ids=lambda file: file.name)
def test_documents_use_plain_words(file: Path) -> None:
    assert private_phrases(file) == []


@pytest.mark.parametrize(
    "line",
    ["told = 1", "# the store is away", 'say(f"{name} is handed on")', 'x = """One.\n\nMend it."""', "so_many = 2"],
)
def test_a_private_phrase_is_found_wherever_it_stands(tmp_path: Path, line: str) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"{line}\nstream.tell()\n")
    assert len(private_phrases(file)) == 1
