"""A Kaldi folder: wav.scp, text and utt2spk, also with segments."""

from __future__ import annotations

from collections.abc import Iterator

from cosyflow.corpus.importing.source import Clip, Source, one_line
from cosyflow.corpus.kaldi import WAV_SCP, absolute_wav
from cosyflow.corpus.own_kaldi import OwnKaldi
from cosyflow.errors import CosyFlowError, PlaceError


def recognise(source: Source) -> bool:
    return any(each.path == WAV_SCP for each in source.files)


def read(source: Source) -> Iterator[Clip]:
    own = OwnKaldi(source.root, source.root, piped=None)
    source.ignored.update(own.ignored())
    for each in own.sources:
        utterance = each.utterance
        try:
            _, audio = own.read(each)
        except PlaceError:
            raise
        except CosyFlowError as error:
            recording = absolute_wav(utterance.wav, source.root) if utterance.wav else ""
            yield Clip(utterance.utt, utterance.text, problem=str(error).removeprefix(f"{recording}: "))
        else:
            yield Clip(
                utterance.utt, one_line(utterance.text), audio, speaker=utterance.spk, instruct=utterance.instruct
            )
