"""The table of layouts: what each looks like, and which of them a folder is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cosyflow.corpus.importing import arrow, kaldi, libritts, pairs, tables, tars
from cosyflow.corpus.importing.source import Clip, Source
from cosyflow.errors import CosyFlowError, RefusalError


class UnknownLayoutError(CosyFlowError):
    """A folder is none of the layouts."""


@dataclass(frozen=True)
class Layout:
    """One way to keep a corpus."""

    name: str
    looks_like: str
    recognise: Callable[[Source], bool]
    read: Callable[[Source], Iterator[Clip]]
    is_prepared: bool = False
    """Whether `cosyflow prepare` reads it too."""


LAYOUTS = (
    Layout("Kaldi", "wav.scp, text and utt2spk, perhaps segments", kaldi.recognise, kaldi.read, is_prepared=True),
    Layout("LibriTTS", "audio with UTTERANCE.normalized.txt", libritts.recognise, libritts.read, is_prepared=True),
    Layout("Hugging Face data set", "*.arrow or *.parquet with a column of audio", arrow.recognise, arrow.read),
    Layout("WebDataset", "*.tar with KEY.wav and KEY.txt or KEY.json", tars.recognise, tars.read),
    Layout("table", "metadata.csv, *.csv, *.tsv, *.jsonl, TRANS.txt", tables.recognise, tables.read),
    Layout("pairs", "audio with a .txt, .lab or .json of the same name", pairs.recognise, pairs.read),
)


def layout_of(source: Source) -> Layout:
    """The first layout that a folder has.

    Raises:
        RefusalError: there are tables, and none of them has the columns that were asked for.
        UnknownLayoutError: it has none of them.
        CosyFlowError: a table or container cannot be read.
    """
    for layout in LAYOUTS:
        if layout.recognise(source):
            return layout
    if problems := [*arrow.missing_columns(source), *tables.missing_columns(source)]:
        raise RefusalError(problems)
    known = "; ".join(f"{layout.name} ({layout.looks_like})" for layout in LAYOUTS)
    raise UnknownLayoutError(f"{source.root}: no layout that is known. Known are: {known}{tables.hint(source)}")
