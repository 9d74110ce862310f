"""Formats that libsndfile does not read (m4a and the like): decoded by ffmpeg where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from cosyflow import storage
from cosyflow.audio.locator import Locator
from cosyflow.errors import AudioError

SUFFIXES = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr")
SECONDS_ALLOWED = 600


def decode(audio: str | bytes, name: str) -> bytes:
    """A WAV file of the same samples.

    Raises:
        AudioError: there is no ffmpeg, or it cannot decode the file.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        suffix = Path(name).suffix.lower().removeprefix(".") or "this format"
        raise AudioError(f"{name}: no decoder for {suffix}; install ffmpeg, or convert it to WAV or FLAC")
    with tempfile.NamedTemporaryFile(prefix="cosyflow-") as copy:
        copy.write(audio if isinstance(audio, bytes) else storage.read_bytes(Locator.parse(audio).file))
        copy.flush()
        command = [
            program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", f"file:{copy.name}",
            "-vn", "-f", "wav", "-acodec", "pcm_s16le", "-",
        ]  # fmt: skip
        try:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS_ALLOWED)
        except subprocess.TimeoutExpired:
            raise AudioError(f"{name}: cannot be decoded: ffmpeg took more than {SECONDS_ALLOWED} s") from None
    if ended.returncode or not ended.stdout:
        lines = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AudioError(f"{name}: cannot be decoded: {lines[-1] if lines else 'ffmpeg printed nothing'}")
    return ended.stdout
