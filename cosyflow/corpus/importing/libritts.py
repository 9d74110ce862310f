"""Trees of LibriTTS and LibriTTS-R: SPEAKER/CHAPTER/UTTERANCE.wav with UTTERANCE.normalized.txt in the same folder."""

from __future__ import annotations

from collections.abc import Iterator

from cosyflow.corpus.importing.source import Clip, Source
from cosyflow.corpus.libritts import TRANSCRIPT, read_libritts, read_transcript
from cosyflow.errors import CosyFlowError, PlaceError


def recognise(source: Source) -> bool:
    return bool(source.audio) and bool(source.with_suffix(TRANSCRIPT))


def read(source: Source) -> Iterator[Clip]:
    tree = read_libritts(source.root)
    source.ignored.update(tree.ignored)
    for file in tree.files:
        text, problem = "", file.problem and f"{file.problem}: {file.wav}"
        if not problem:
            try:
                text = read_transcript(file)
            except PlaceError:
                raise
            except CosyFlowError as error:
                reason = str(error)
                is_plain = reason.startswith(("no transcript", "empty transcript"))
                problem = reason if is_plain else f"unreadable transcript: {reason}"
        yield Clip(file.utt, text, file.wav, speaker=file.spk, problem=problem)
