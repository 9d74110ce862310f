"""The pages for people (README, CONTRIBUTING, docs): their blocks of code, how each is tested, the commands in it.

A block says after its language how it is tested:

    bash run                  run as it stands in a fresh clone, in the order of the page (tests/outside)
    bash ci                   targets that .ci/run makes
    bash only parsed: REASON  syntax, commands, options and files that it names (tests/unit/core)
    console only parsed: ...  the same, of what stands behind "$ "; the rest is what a command has printed
    yaml run, yaml job        a run's file, a training job's file: read as such
    yaml resources            a part of a run's file
    yaml judges               a list of judges: read as such
    yaml retraining           a declared run
    text, mermaid             what was printed; a picture
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(?P<info>.*)\n(?P<text>(?:.*\n)*?)```$", re.MULTILINE)
MARKS = re.compile(
    r"bash (run|ci)|(bash|console) only parsed: \S.*|yaml (run|job|resources|judges|retraining)|text|mermaid"
)
INLINE = re.compile(r"`((?:\.venv/bin/)?(?:cosyflow|python -m pipelines|make|kfp|kubectl) [^`:]+)`")
LINK = re.compile(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)")
COMMENT = re.compile(r"(?:^|[ \t]+)# .*$", re.MULTILINE)
SEPARATORS = set(";&|()\n")
REDIRECTIONS = set("<>")
WORDS_OF_THE_SHELL = {"do", "done", "then", "fi", "else", "if", "!", "export"}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what stands behind the fence, and its lines."""

    page: str
    line: int
    info: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_marked(self) -> bool:
        return MARKS.fullmatch(self.info) is not None

    @property
    def mark(self) -> str:
        """How it is tested: run, ci, only parsed, or the kind of a file."""
        return self.info.partition(" ")[2].partition(":")[0]

    @property
    def script(self) -> str:
        """Its commands: of a console what stands behind the prompt."""
        if not self.info.startswith("console"):
            return self.text
        return "".join(line[2:] for line in self.text.splitlines(keepends=True) if line.startswith("$ "))


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(name_of(page), text.count("\n", 0, match.start()) + 1, match["info"].strip(), match["text"])
        for match in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[tuple[str, str]]:
    """Where the links of a page to other files of the checkout lead: a path from the page on, and a heading or ""."""
    return [(match[1], match[2] or "") for match in LINK.finditer(prose(page))]


def headings(page: Path) -> set[str]:
    """The names by which links know the headings of a page."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def inline_commands(page: Path) -> list[list[str]]:
    """Commands in the sentences and tables of a page, each as its words."""
    return [words for match in INLINE.finditer(prose(page)) for words in commands(" ".join(match[1].split()))]


def commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script, each as its words, without assignments, redirections and control words."""
    lines = COMMENT.sub("", script).replace("\\\n", " ")
    lexer = shlex.shlex(lines, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split = " \t", True  # a line's end ends a command
    lexer.commenters = ""
    words: list[str] = []
    is_file = False
    for word in (*lexer, ";"):
        if word and set(word) <= SEPARATORS:
            if words := _command(words):
                yield words
            words = []
        elif word and set(word) <= REDIRECTIONS:
            is_file = True
        elif is_file:
            is_file = False
        else:
            words.append(word)


def _command(words: list[str]) -> list[str]:
    while words and (words[0] in WORDS_OF_THE_SHELL or re.match(r"[A-Za-z_]\w*=", words[0])):
        words = words[1:]
    if words[:1] == ["for"]:  # its list
        return []
    return [word.removeprefix(".venv/bin/") for word in words[:1]] + words[1:]
