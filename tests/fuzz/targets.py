"""What the readers are given: for each target valid files, and what reads them as the product does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import binaries, pages, texts
from tests.fuzz.documents import Document


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        make: writes valid files into an empty folder; returns those that are to be damaged, by name.
        read: reads the folder.
    """

    make: Callable[[Path], dict[str, Document]]
    read: Callable[[Path], None]


TEXTS = {
    "kaldi": Target(texts.make_kaldi, texts.read_kaldi),
    "lists": Target(texts.make_lists, texts.read_lists),
    "recipes": Target(texts.make_recipes, texts.read_recipes),
    "runs": Target(texts.make_runs, texts.read_runs),
    "records": Target(texts.make_records, texts.read_records),
    "tables": Target(texts.make_tables, texts.read_tables),
    "pages": Target(pages.make_pages, pages.read_pages),
    "tokenizers": Target(texts.make_tokenizers, texts.read_tokenizers),
}
BINARIES = {
    "wav": Target(binaries.make_wav, binaries.read_audio),
    "compressed-audio": Target(binaries.make_compressed, binaries.read_audio),
    "shards": Target(binaries.make_shards, binaries.read_shards),
    "arrow": Target(binaries.make_arrow, binaries.read_arrow),
    "checkpoints": Target(binaries.make_checkpoints, binaries.read_checkpoints),
    "states": Target(binaries.make_states, binaries.read_states),
    "archives": Target(binaries.make_archives, binaries.read_archives),
    "onnx": Target(binaries.make_onnx, binaries.read_onnx),
}
TARGETS = TEXTS | BINARIES
