"""Writing speech to a file."""

from __future__ import annotations

import io

import soundfile
from torch import Tensor

from cosyflow import storage


def write_wav(waveform: Tensor, sample_rate: int, uri: str) -> None:
    """Writes float32 [samples] in [-1, 1] as 16 bit PCM; the file is whole or not there."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform.numpy(), sample_rate, format="WAV", subtype="PCM_16")
    storage.write_bytes(uri, buffer.getvalue())
