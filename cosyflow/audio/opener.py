"""The one place where audio is read: from a path, a URI or the bytes of an audio file."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import soundfile

from cosyflow import storage
from cosyflow.audio.container import PLACEHOLDER, Facts, IncompleteError, look
from cosyflow.audio.locator import Locator
from cosyflow.audio.quiet import quiet_mpeg
from cosyflow.errors import AudioError, CosyFlowError, PlaceError
from cosyflow.unexpected import reading

if TYPE_CHECKING:
    import torch

MEMORY_NAME = "audio in memory"
_CLAIM = re.compile(r": *(?P<claimed>\d+) \(should be (?P<there>\d+)\)")
_LOOKED_AT = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
"""Formats whose sizes `look` compares; for others the decoder's log is read."""
_MOST_SAMPLES_PER_BYTE = 10_000
"""FLAC has 4,700 in a byte of perfect silence, Vorbis and Opus have fewer."""
_LOSSLESS = {"PCM_S8": "PCM_16", "PCM_U8": "PCM_16", "PCM_16": "PCM_16", "PCM_24": "PCM_24", "PCM_32": "PCM_32"}


@dataclass(frozen=True)
class AudioInfo:
    """The length and form of an audio file or of a part of one, by its header."""

    sample_rate: int
    channels: int
    num_samples: int

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate


def open_audio(locator: str | bytes, name: str | None = None) -> tuple[torch.Tensor, int]:
    """As `read_samples`, but a tensor [channels, samples]."""
    import torch  # stages that do not compute with audio run where there is none

    samples, sample_rate = read_samples(locator, name)
    return torch.from_numpy(np.ascontiguousarray(samples.T)), sample_rate


def read_samples(locator: str | bytes, name: str | None = None) -> tuple[np.ndarray, int]:
    """Decodes an audio file, or the part of it that a locator means.

    Args:
        locator: a path or URI of a file in any format that libsndfile reads (WAV, FLAC, Ogg, MP3), also with a part of
            it (`cosyflow.audio.locator`), or the bytes of such a file.
        name: what errors call it; the locator by default.
    Returns:
        float32 samples in [-1, 1] of shape [samples, channels], and the sample rate in Hz.
    Raises:
        AudioError: the file is missing, empty, truncated, not audio, or holds a sample that is not a finite number; or
            the part does not lie within it.
        PlaceError: the store fails or does not answer, which says nothing about the file.
    """
    name = _name(locator, name)
    with _opened(locator, name) as audio:
        samples = audio.read("float32")
        if not np.isfinite(samples).all():
            raise AudioError(f"{name}: holds samples that are not finite numbers; convert it again from its source")
        return samples, audio.info.sample_rate


def inspect_audio(locator: str | bytes, name: str | None = None) -> AudioInfo:
    """Reads the header of an audio file, and compares the length in it with what is there.

    Args and errors as of `read_samples`, but for damage that only shows when the samples are decoded.
    """
    with _opened(locator, _name(locator, name)) as audio:
        return audio.info


def read_audio_file(locator: str) -> tuple[bytes, int]:
    """The bytes of an audio file that holds what a locator means and nothing else, and the size of the file it lies in.

    A part becomes a WAV file with the very samples that `read_samples` gives.

    Raises:
        CosyFlowError: as `read_samples`; a whole file is not looked into.
    """
    parsed = Locator.parse(locator)
    if parsed.is_whole:
        content = storage.read_bytes(parsed.file)
        return content, len(content)
    with _opened(locator, locator) as audio:
        subtype = _LOSSLESS.get(audio.decoder.subtype, "FLOAT")
        samples = audio.read({"PCM_16": "int16", "FLOAT": "float32"}.get(subtype, "int32"))
        stream = io.BytesIO()
        soundfile.write(stream, samples, audio.info.sample_rate, format="WAV", subtype=subtype)
    return stream.getvalue(), audio_file_size(locator)


def audio_file_size(locator: str) -> int:
    """Bytes of the file that a locator lies in."""
    return storage.size(Locator.parse(locator).file)


@dataclass(frozen=True)
class _Audio:
    """An opened file, and which of its samples are meant."""

    decoder: soundfile.SoundFile
    start: int
    info: AudioInfo
    name: str

    def read(self, dtype: str) -> np.ndarray:
        """[samples, channels]; raises AudioError when they are not all there."""
        wanted = self.info.num_samples
        try:
            if self.start:
                self.decoder.seek(self.start)
            samples: np.ndarray = self.decoder.read(wanted, dtype=dtype, always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{self.name}: cannot be decoded ({error.error_string}); is the file damaged?") from error
        except (MemoryError, ValueError) as error:  # the second of numpy, for more samples than can be addressed
            raise AudioError(f"{self.name}: its header promises {wanted} samples; is the file damaged?") from error
        if len(samples) < wanted:
            raise AudioError(f"{self.name}: truncated, {len(samples)} of {wanted} samples are there; copy it again")
        return samples


def _name(locator: str | bytes, name: str | None) -> str:
    return name or (MEMORY_NAME if isinstance(locator, bytes) else locator)


@contextmanager
def _opened(locator: str | bytes, name: str) -> Iterator[_Audio]:
    meant = Locator(MEMORY_NAME) if isinstance(locator, bytes) else Locator.parse(locator)
    with (
        _stream(locator if isinstance(locator, bytes) else meant.file, name) as stream,
        reading(name, "an audio file", "convert it again from its source", AudioError),
    ):
        facts = _facts(stream, name)
        stream.patches = facts.patches
        with quiet_mpeg() if facts.is_mpeg else nullcontext(), _decoder(stream, name) as decoder:
            if facts.is_doubtful:
                _require_end(decoder, name)
            yield _part(decoder, meant, facts, name)


@contextmanager
def _stream(file: str | bytes, name: str) -> Iterator[_RememberingStream]:
    if isinstance(file, bytes):
        yield _RememberingStream(io.BytesIO(file))
        return
    try:
        opened = storage.open_read(file)
    except PlaceError:
        raise
    except (CosyFlowError, OSError, ValueError) as error:  # the last for a name that cannot be one
        raise AudioError(f"{name}: cannot be opened ({_reason(error)})") from error
    with opened as binary:
        stream = _RememberingStream(binary)
        try:
            yield stream
        except AudioError:
            stream.raise_failure(name)
            raise
        stream.raise_failure(name)


class _RememberingStream(io.RawIOBase):
    """A stream whose failed reads outlive libsndfile, which takes them for the end of the file.

    Without it a store that stops answering in the middle of a file would make that file a damaged one.

    `patches` are bytes by position that are given in place of those in the file.
    """

    patches: Mapping[int, bytes] = MappingProxyType({})

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
            start = self._stream.tell() if self.patches else 0
            data = self._stream.read(len(buffer))
        except (CosyFlowError, OSError) as error:
            self._failure = error
            return 0
        if self.patches:
            data = self._patched(start, bytearray(data))
        buffer[: len(data)] = data
        return len(data)

    def _patched(self, start: int, data: bytearray) -> bytes:
        for position, patch in self.patches.items():
            for place, byte in enumerate(patch, position - start):
                if 0 <= place < len(data):
                    data[place] = byte
        return bytes(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def raise_failure(self, name: str) -> None:
        if isinstance(self._failure, PlaceError):
            raise self._failure
        if self._failure:
            raise AudioError(f"{name}: cannot be read ({_reason(self._failure)})") from self._failure


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _facts(stream: _RememberingStream, name: str) -> Facts:
    """What the container says; raises AudioError when it says that the file is cut."""
    size = stream.seek(0, io.SEEK_END)
    if size == 0:
        raise AudioError(f"{name}: empty file")
    try:
        return look(cast(BinaryIO, stream), size)
    except IncompleteError as error:
        raise AudioError(f"{name}: truncated, {error}; copy it again") from error


def _decoder(stream: _RememberingStream, name: str) -> soundfile.SoundFile:
    """A decoder that has read the header."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        decoder = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(
            f"{name}: not an audio file that is read here ({reason}); convert it to WAV or FLAC"
        ) from error
    if decoder.frames == 0:
        raise AudioError(f"{name}: holds no samples")
    if decoder.frames > _MOST_SAMPLES_PER_BYTE * size:
        raise AudioError(f"{name}: its header promises {decoder.frames} samples in {size} bytes; copy it again")
    if decoder.format not in _LOOKED_AT:
        claims = ((int(match["claimed"]), int(match["there"])) for match in _CLAIM.finditer(decoder.extra_info))
        missing = max((claimed - there for claimed, there in claims if claimed < PLACEHOLDER), default=0)
        if missing > 0:
            raise AudioError(
                f"{name}: truncated, its header promises {missing} bytes more than are there; copy it again"
            )
    return decoder


def _require_end(decoder: soundfile.SoundFile, name: str) -> None:
    """Decodes the last second; raises AudioError when it is not there."""
    wanted = min(decoder.frames, decoder.samplerate)
    try:
        decoder.seek(decoder.frames - wanted)
        there = len(decoder.read(wanted, dtype="float32"))
        decoder.seek(0)
    except (soundfile.LibsndfileError, MemoryError, ValueError) as error:
        raise AudioError(f"{name}: truncated, its end cannot be decoded; copy it again") from error
    if there < wanted:
        raise AudioError(f"{name}: truncated, {wanted - there} samples are missing; copy it again")


def _part(decoder: soundfile.SoundFile, meant: Locator, facts: Facts, name: str) -> _Audio:
    rate, total = decoder.samplerate, facts.num_samples or decoder.frames
    if total > decoder.frames:
        raise AudioError(
            f"{name}: its header has no length and its frames differ in size; convert it again from its source"
        )
    start, end = meant.samples(rate)
    end = total if end is None else end
    if not start < end <= total:
        raise AudioError(f"{name}: {start / rate:.4f} to {end / rate:.4f} s is no part of its {total / rate:.4f} s")
    return _Audio(decoder, start, AudioInfo(rate, decoder.channels, end - start), name)
