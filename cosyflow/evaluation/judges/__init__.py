"""Judges: models that hear speech. Each has a role, and is a file or folder that a user names."""

from __future__ import annotations

from typing import Protocol

from cosyflow.evaluation.sound import Sound

TRANSCRIPT, SPEAKER, DNSMOS, QUALITY = "transcript", "speaker", "dnsmos", "quality"
ROLES = {
    TRANSCRIPT: "writes what it hears: a folder with a Whisper model of CTranslate2",
    SPEAKER: "compares voices: campplus.onnx or a model of its signature, or d-vectors of Resemblyzer (.pt)",
    DNSMOS: "scores noise and distortion: sig_bak_ovr.onnx of DNSMOS",
    QUALITY: "scores quality by other means: DistillMOS (.pt), or an ONNX model of a waveform",
}


class Judge(Protocol):
    """A loaded judge. The same sounds give the same answer."""

    def hear(self, sound: Sound, prompt: Sound) -> float | str:
        """What it makes of a sound; `prompt` is a recording of the voice that should speak."""
        ...
