"""What the two extraction models are given of an audio file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cosyflow.audio.features import FEATURE_SAMPLE_RATE, fbank, whisper_log_mel
from cosyflow.audio.opener import open_audio
from cosyflow.audio.speech import resample
from cosyflow.errors import AudioError

TOKENIZER_MAX_SECONDS = 30


def speaker_fbank(wav: str) -> torch.Tensor:
    """The speaker-embedding model's input: [frames, 80], each bin without its mean over time.

    Of a file with several channels the first one counts. Raises AudioError, also when it is shorter than 25 ms.
    """
    waveform, sample_rate = open_audio(wav)
    with _named(wav):
        features = fbank(resample(waveform[0], sample_rate, FEATURE_SAMPLE_RATE))
    return features - features.mean(dim=0, keepdim=True)


def tokenizer_log_mel(wav: str) -> torch.Tensor:
    """The speech tokenizer's input: [128, frames], 100 frames a second.

    Channels are averaged after resampling. Raises AudioError, also when it is shorter than 25 ms or longer than 30 s.
    """
    waveform, sample_rate = open_audio(wav)
    mono = resample(waveform, sample_rate, FEATURE_SAMPLE_RATE).mean(dim=0)
    seconds = mono.shape[-1] / FEATURE_SAMPLE_RATE
    if seconds > TOKENIZER_MAX_SECONDS:
        raise AudioError(
            f"{wav}: {seconds:.2f} s, the speech tokenizer takes {TOKENIZER_MAX_SECONDS} s at most; split it"
        )
    with _named(wav):
        return whisper_log_mel(mono)


@contextmanager
def _named(wav: str) -> Iterator[None]:
    """Names the file in errors of those who know only its samples."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{wav}: {error}") from error
