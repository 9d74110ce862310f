"""The judge that writes what it hears: Whisper (Radford et al., 2022) by CTranslate2."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosyflow.evaluation.sound import RATE, Sound

QUIET = round(0.2 * RATE)
"""Samples of silence at both ends, without which it swallows the first or last word."""
BEAM = 5


class Whisper:
    """A Whisper of any size, in 8 bits on a processor and in 16 on a GPU."""

    def __init__(self, folder: str, language: str, threads: int = 1) -> None:
        from faster_whisper import WhisperModel

        self._language = language
        self._model: Any = WhisperModel(folder, cpu_threads=threads, local_files_only=True, **_device())

    def hear(self, sound: Sound, prompt: Sound) -> str:
        """The words, as they come from the model: without draws, without a text before, and as a whole."""
        segments, _ = self._model.transcribe(
            np.pad(sound.heard, QUIET),
            language=self._language,
            beam_size=BEAM,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=sound.seconds < 25,
        )
        return " ".join(segment.text.strip() for segment in segments)


def _device() -> dict[str, str]:
    from ctranslate2 import get_cuda_device_count

    if get_cuda_device_count():
        return {"device": "cuda", "compute_type": "float16"}
    return {"device": "cpu", "compute_type": "int8"}
