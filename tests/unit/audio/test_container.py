"""Headers of every writer are understood, and a file that ends early is found without decoding it."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.audio.opener import inspect_audio, open_audio, read_samples
from cosyflow.audio.quiet import quiet_mpeg
from cosyflow.errors import AudioError

SAMPLE_RATE = 24000
SAMPLES = 30_000


def speech_like(num_samples: int = SAMPLES) -> np.ndarray:
    time = np.arange(num_samples) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(0, 0.05, num_samples)
    return (0.3 * np.sin(900 * time) * np.sin(7 * time) + noise).astype(np.float32)


def encoded(format: str, subtype: str | None = None, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    samples = np.tile(speech_like()[:, None], channels)
    soundfile.write(stream, samples, SAMPLE_RATE, format=format, subtype=subtype)
    return stream.getvalue()


WAV = encoded("WAV", "PCM_16")
DATA = WAV.index(b"data") + 4


def piped(data_size: int, riff_size: int) -> bytes:
    return WAV[:4] + struct.pack("<I", riff_size) + WAV[8:DATA] + struct.pack("<I", data_size) + WAV[DATA + 4 :]


@pytest.mark.parametrize(
    ("data_size", "riff_size"),
    [
        (0x7FFF_F000, 0x7FFF_F024),  # sox
        (0xFFFF_FFFF, 0xFFFF_FFFF),  # ffmpeg
        (0x8000_0000, 0x8000_0024),  # arecord
        (0x7FFF_FFFF, 0x7FFF_FFFF),
        (0xFFFF_FFDB, 0xFFFF_FFFF),
        (0, 0),  # a recorder that was switched off
        (0, 36),
    ],
)
def test_a_wav_that_was_written_into_a_pipe_is_as_long_as_its_file(data_size: int, riff_size: int) -> None:
    content = piped(data_size, riff_size)
    assert inspect_audio(content).num_samples == SAMPLES
    assert np.array_equal(read_samples(content)[0], read_samples(WAV)[0])


@pytest.mark.parametrize("too_much", [36, 44])
def test_a_wav_that_counts_its_header_as_data_is_whole(too_much: int) -> None:
    content = piped(2 * SAMPLES + too_much, len(WAV) - 8)
    assert inspect_audio(content).num_samples == SAMPLES
    assert np.array_equal(read_samples(content)[0], read_samples(WAV)[0])
    with pytest.raises(AudioError, match="truncated"):
        inspect_audio(content[:-1000])


@pytest.mark.parametrize("is_finished", [True, False])
def test_bw64_is_read_as_rf64(is_finished: bool) -> None:
    content = bytearray(encoded("RF64", "PCM_16"))
    content[:4] = b"BW64"
    if not is_finished:
        place = content.index(b"ds64") + 8
        content[place : place + 24] = bytes(24)
    assert inspect_audio(bytes(content)).num_samples == SAMPLES
    with pytest.raises(AudioError, match="truncated" if is_finished else "holds no samples"):
        inspect_audio(bytes(content[: -1000 if is_finished else -2 * SAMPLES]))


@pytest.mark.parametrize("long_size", [0, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF])
def test_a_long_wav_that_was_written_into_a_pipe(long_size: int) -> None:
    content = bytearray(encoded("RF64", "PCM_16"))
    place = content.index(b"ds64") + 8
    content[place : place + 24] = struct.pack("<QQQ", long_size, long_size, 0)
    assert inspect_audio(bytes(content)).num_samples == SAMPLES
    assert np.array_equal(read_samples(bytes(content))[0], read_samples(WAV)[0])


def test_a_flac_that_was_written_into_a_pipe() -> None:
    whole = encoded("FLAC")
    content = bytearray(whole)
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    assert inspect_audio(bytes(content)).num_samples == SAMPLES
    assert np.array_equal(read_samples(bytes(content))[0], read_samples(whole)[0])


def test_what_follows_a_flac_is_no_audio() -> None:
    content = encoded("FLAC")
    for tail in (bytes(500), b"TAG" + bytes(125), b"APETAGEX" + bytes(24)):
        assert inspect_audio(content + tail).num_samples == SAMPLES
        assert np.array_equal(read_samples(content + tail)[0], read_samples(content)[0])


def mp3_without_a_count() -> bytes:
    """As ffmpeg writes into a pipe: the frame with the number of frames is missing."""
    stream = io.BytesIO()
    options = {"bitrate_mode": "CONSTANT", "compression_level": 0.5}
    soundfile.write(stream, speech_like(), SAMPLE_RATE, format="MP3", **options)
    content = stream.getvalue()
    second = content.index(content[:2], 4)
    assert b"Info" in content[:second] or b"Xing" in content[:second]
    return content[second:]


def test_an_mp3_without_a_count_is_as_long_as_its_frames() -> None:
    content = mp3_without_a_count()
    waveform, _ = open_audio(content)
    assert waveform.shape[1] == inspect_audio(content).num_samples
    assert SAMPLES <= waveform.shape[1] <= SAMPLES + 5 * 576


def test_tags_around_an_mp3_are_no_audio() -> None:
    content = encoded("MP3")
    tag = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 40, 1, 0) + bytes(8)
    tagged = tag + content + bytes(40) + ape + b"TAG" + bytes(125)
    assert inspect_audio(tagged) == inspect_audio(content)
    with pytest.raises(AudioError, match="truncated"):
        inspect_audio(tag + content[:-5] + b"TAG" + bytes(125))


CUT = {
    "WAV": WAV,
    "WAV, two channels": encoded("WAV", "PCM_24", channels=2),
    "RF64": encoded("RF64", "PCM_16"),
    "FLAC": encoded("FLAC"),
    "FLAC, two channels": encoded("FLAC", "PCM_24", channels=2),
    "Ogg Vorbis": encoded("OGG", "VORBIS"),
    "Ogg Opus": encoded("OGG", "OPUS"),
    "MP3": encoded("MP3"),
    "MP3 without a count": mp3_without_a_count(),
    "AIFF": encoded("AIFF"),
    "AU": encoded("AU"),
    "SPHERE": encoded("NIST"),
}


@pytest.mark.parametrize("case", CUT)
def test_a_whole_file_is_whole(case: str) -> None:
    info = inspect_audio(CUT[case])
    assert read_samples(CUT[case])[0].shape == (info.num_samples, info.channels)


@pytest.mark.medium
@settings(max_examples=150, deadline=None)
@given(case=st.sampled_from(sorted(CUT.keys() - {"MP3 without a count"})), share=st.floats(0.05, 1, exclude_max=True))
def test_a_file_that_ends_early_is_found_without_decoding(case: str, share: float) -> None:
    length = min(int(len(CUT[case]) * share), len(CUT[case]) - 4)
    with pytest.raises(AudioError, match=r"truncated|not an audio file|no samples|utterance 7"):
        inspect_audio(CUT[case][:length], name="utterance 7")


def test_the_decoder_prints_nothing_and_others_may(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(encoded("MP3"))
    for place in range(1000, len(content), 500):
        content[place : place + 40] = bytes(range(40))
    (tmp_path / "a.mp3").write_bytes(content)
    with contextlib.suppress(AudioError):
        open_audio(str(tmp_path / "a.mp3"))
    assert capfd.readouterr().err == ""
    with quiet_mpeg():
        other = threading.Thread(target=lambda: os.write(2, b"the store does not answer\n"))
        other.start()
        other.join()
        os.write(2, b"[src/libmpg123/layer3.c:INT123_do_layer3():1801] error: dequantization failed!\n")
    assert capfd.readouterr().err == "the store does not answer\n"


def test_an_mp3_without_a_count_that_ends_within_a_frame_is_found() -> None:
    """A cut between two frames cannot be."""
    content = CUT["MP3 without a count"]
    last = content.rfind(content[:2], 0, len(content) - 40)
    for length in range(last + 8, len(content) - 4, 5):
        with pytest.raises(AudioError, match="truncated"):
            inspect_audio(content[:length])
