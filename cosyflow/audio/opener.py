"""The one place where audio is read: from a path, a URI or the bytes of an audio file."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import soundfile

from cosyflow import storage
from cosyflow.errors import AudioError, CosyFlowError, OutageError

if TYPE_CHECKING:
    import torch

UNKNOWN_SIZE = 0xFFFFFFFF  # what a program that writes RIFF into a pipe puts where the size would be
MEMORY_NAME = "audio in memory"


@dataclass(frozen=True)
class AudioInfo:
    """The length and form of an audio file, as its header tells."""

    sample_rate: int
    channels: int
    num_samples: int

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


def open_audio(locator: str | bytes, name: str | None = None) -> tuple[torch.Tensor, int]:
    """Decodes a whole audio file.

    Args:
        locator: a path or URI of a file in any format that libsndfile reads (WAV, FLAC, Ogg, MP3), or its bytes.
        name: what errors call it; the path or URI by default.
    Returns:
        float32 samples in [-1, 1] of shape [channels, samples], and the sample rate in Hz.
    Raises:
        AudioError: the file is missing, empty, truncated, not audio, or holds a sample that is not a finite number.
        OutageError: the store went away, which says nothing of the file.
    """
    import torch  # stages that read only headers run where there is none

    name = _name(locator, name)
    with _opened(locator, name) as stream, _decoder(stream, name) as decoder:
        promised, sample_rate = decoder.frames, decoder.samplerate
        try:
            samples = decoder.read(dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{name}: cannot be decoded ({error.error_string}); is the file damaged?") from error
        except (MemoryError, ValueError) as error:  # the second of numpy, for more samples than can be addressed
            raise AudioError(f"{name}: its header promises {promised} samples; is the file damaged?") from error
    if len(samples) < promised:
        raise AudioError(f"{name}: truncated, {len(samples)} of {promised} samples are there; copy it again")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds samples that are not finite numbers; convert it again from its source")
    return torch.from_numpy(np.ascontiguousarray(samples.T)), sample_rate


def inspect_audio(locator: str | bytes, name: str | None = None) -> AudioInfo:
    """Reads only the header of an audio file, and compares it with the file's size.

    Args and errors as of `open_audio`, but for damage that only shows when the samples are decoded.
    """
    name = _name(locator, name)
    with _opened(locator, name) as stream, _decoder(stream, name) as decoder:
        return AudioInfo(decoder.samplerate, decoder.channels, decoder.frames)


def _name(locator: str | bytes, name: str | None) -> str:
    return name or (MEMORY_NAME if isinstance(locator, bytes) else locator)


@contextmanager
def _opened(locator: str | bytes, name: str) -> Iterator[BinaryIO]:
    if isinstance(locator, bytes):
        yield io.BytesIO(locator)
        return
    try:
        opened = storage.open_read(locator)
    except OutageError:
        raise
    except (CosyFlowError, OSError) as error:
        raise AudioError(f"{name}: cannot be opened ({_reason(error)})") from error
    with opened as file:
        stream = _RememberingStream(file)
        try:
            yield cast(BinaryIO, stream)
        except AudioError:
            stream.raise_failure(name)
            raise
        stream.raise_failure(name)


class _RememberingStream(io.RawIOBase):
    """A stream whose failed reads outlive libsndfile, which takes them for the end of the file.

    Without it a store that goes away in the middle of a file would make that file a damaged one.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self._failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (CosyFlowError, OSError) as error:
            self._failure = error
            return 0
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def raise_failure(self, name: str) -> None:
        if isinstance(self._failure, OutageError):
            raise self._failure
        if self._failure:
            raise AudioError(f"{name}: cannot be read ({_reason(self._failure)})") from self._failure


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _decoder(stream: BinaryIO, name: str) -> soundfile.SoundFile:
    """A decoder that has read the header, after a look at the file's size."""
    size = stream.seek(0, io.SEEK_END)
    if size == 0:
        raise AudioError(f"{name}: empty file")
    missing = _missing_riff_bytes(stream, size)
    if missing > 0:
        raise AudioError(f"{name}: truncated, its header promises {missing} bytes more than are there; copy it again")
    stream.seek(0)
    try:
        decoder = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{name}: not an audio file ({error.error_string})") from error
    if decoder.frames == 0:
        raise AudioError(f"{name}: holds no samples")
    return decoder


def _missing_riff_bytes(stream: BinaryIO, size: int) -> int:
    """How far the `data` chunk of a RIFF file reaches beyond the end of the file, in bytes (0 for other formats)."""
    stream.seek(0)
    start = stream.read(12)
    if not start.startswith(b"RIFF") or start[8:] not in (b"", b"WAVE"):
        return 0
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        chunk, length = struct.unpack("<4sI", stream.read(8))
        position += 8
        if chunk == b"data":
            return 0 if length == UNKNOWN_SIZE else max(0, position + length - size)
        position += length + length % 2
    return position + 8 - size
