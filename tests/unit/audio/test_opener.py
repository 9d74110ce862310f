"""The opener reads what libsndfile reads, and says of every other file what is wrong with it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow import storage
from cosyflow.audio.opener import inspect_audio, open_audio
from cosyflow.errors import AudioError, OutageError

SAMPLE_RATE = 24000


def encoded(samples: np.ndarray, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE, format=format, subtype=subtype)
    return stream.getvalue()


def noise(num_samples: int = 2400, channels: int = 1) -> np.ndarray:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (num_samples, channels))
    return np.round(samples * 32768).astype(np.float32) / 32768


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("format", "subtype"), [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")])
def test_samples_are_those_written(tmp_path: Path, format: str, subtype: str, channels: int) -> None:
    path = tmp_path / "with a space.audio"
    path.write_bytes(encoded(noise(channels=channels), format, subtype))
    waveform, sample_rate = open_audio(str(path))
    assert sample_rate == SAMPLE_RATE
    assert waveform.dtype == torch.float32
    assert torch.equal(waveform, torch.from_numpy(noise(channels=channels).T))
    info = inspect_audio(str(path))
    assert (info.channels, info.num_samples, info.seconds) == (channels, 2400, 0.1)


def test_bytes_and_path_give_the_same(tmp_path: Path) -> None:
    content = encoded(noise())
    (tmp_path / "a.wav").write_bytes(content)
    assert torch.equal(open_audio(content)[0], open_audio(str(tmp_path / "a.wav"))[0])
    assert inspect_audio(content) == inspect_audio(str(tmp_path / "a.wav"))


def test_a_wav_from_a_pipe_has_no_size_and_is_read() -> None:
    content = encoded(noise())
    start = content.index(b"data") + 4
    streamed = content[:start] + b"\xff\xff\xff\xff" + content[start + 4 :]
    assert torch.equal(open_audio(streamed)[0], open_audio(content)[0])


WAV = encoded(noise())
DATA = WAV.index(b"data")
DAMAGED = {
    "empty": (b"", "empty file"),
    "text": (b"It was a bright cold day in April.\n" * 9, "not an audio file"),
    "half_of_the_samples": (WAV[: len(WAV) // 2], "truncated"),
    "one_sample_short": (WAV[:-2], "truncated"),
    "half_of_the_header": (WAV[:20], "truncated"),
    "no_data_chunk": (WAV[:DATA], "truncated"),
    "no_samples": (encoded(np.zeros((0, 1), np.float32)), "no samples"),
    "another_riff": (b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(40), "not an audio file"),
    "not_a_number": (encoded(np.full((100, 1), np.nan, np.float32), subtype="FLOAT"), "not finite"),
    "truncated_flac": (encoded(noise(48000), "FLAC")[:20000], "b.wav: "),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named_with_the_file(tmp_path: Path, case: str) -> None:
    content, reason = DAMAGED[case]
    path = tmp_path / "b.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=reason) as caught:
        open_audio(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["empty", "text", "half_of_the_samples", "no_data_chunk", "no_samples"])
def test_inspection_sees_it_without_decoding(case: str) -> None:
    content, reason = DAMAGED[case]
    with pytest.raises(AudioError, match=f"utterance 7: .*{reason}"):
        inspect_audio(content, name="utterance 7")


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
@pytest.mark.parametrize("failing_from", [0, 100, 30_000])
def test_an_outage_in_the_middle_is_no_damage(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], format: str, failing_from: int
) -> None:
    class Store(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= failing_from:
                raise OutageError("s3://bucket/a: ConnectionClosedError")
            return super().read(size)

    content = encoded(noise(96_000), format)
    monkeypatch.setattr(storage, "open_read", lambda uri: Store(content))
    with pytest.raises(OutageError, match="ConnectionClosedError"):
        open_audio("s3://bucket/a")
    assert "Traceback" not in capfd.readouterr().err


def test_a_disk_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    monkeypatch.setattr(storage, "open_read", lambda path: Disk(encoded(noise(96_000))))
    with pytest.raises(AudioError, match=r"^a\.wav: cannot be read \(Input/output error\)$"):
        open_audio("a.wav")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(AudioError, match="cannot be opened"):
            open_audio(str(path))


def test_a_flac_header_without_a_length_is_an_audio_error() -> None:
    """libsndfile alone would promise 2^63 - 1 samples, more than numpy can address."""
    damaged = bytearray(encoded(noise(500), "FLAC"))
    damaged[21:26] = bytes([damaged[21] & 0xF0, 0, 0, 0, 0])  # the lower 36 bits of 64 hold the number of samples
    with pytest.raises(AudioError, match="truncated, it ends within a frame"):
        open_audio(bytes(damaged[:42]))


@settings(max_examples=100, deadline=None)
@given(
    content=st.sampled_from([WAV[:600], encoded(noise(500), "FLAC"), encoded(noise(500), "OGG", "VORBIS")]),
    damage=st.dictionaries(st.integers(0, 200), st.integers(0, 255), min_size=1, max_size=8),
    length=st.integers(0, 5000),
)
def test_any_damage_is_an_audio_error_or_none(content: bytes, damage: dict[int, int], length: int) -> None:
    damaged = bytearray(content)
    for position, value in damage.items():
        damaged[position] = value
    try:
        waveform, sample_rate = open_audio(bytes(damaged[:length]))
    except AudioError:
        return
    assert waveform.numel() > 0
    assert sample_rate > 0
