"""A part of a recording is named by its seconds, cut by its samples, and is all that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.audio.locator import Locator
from cosyflow.audio.opener import audio_file_size, inspect_audio, open_audio, read_audio_file, read_samples
from cosyflow.errors import AudioError

from .test_container import SAMPLE_RATE, SAMPLES, encoded, speech_like

SECONDS = st.floats(0, 1e6).map(lambda seconds: round(seconds, 9))


@given(file=st.text(min_size=1), start=SECONDS, length=st.none() | SECONDS)
def test_what_is_written_is_read_back(file: str, start: float, length: float | None) -> None:
    locator = Locator(file, start, None if length is None else start + length)
    assert Locator.parse(str(locator)) == locator


@pytest.mark.parametrize("name", ["a.wav", "a#t=0.5,1.wav", "a.wav#t=0,0.5", "#t=1", "a.wav#t=0"])
def test_a_file_whose_name_looks_like_a_part_is_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encoded("WAV", "PCM_16"))
    for locator in (str(path), str(Locator(str(path)))):
        assert inspect_audio(locator).num_samples == SAMPLES
        assert read_audio_file(locator)[0] == path.read_bytes()
    part = str(Locator(str(path), 0.5, 1.0))
    assert inspect_audio(part).num_samples == SAMPLE_RATE // 2


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "PCM_U8"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")],
)
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (0.30001, 0.90002), (1.0, None), (0.00003, 1.25)])
def test_a_part_is_cut_by_its_samples(
    tmp_path: Path, format: str, subtype: str, start: float, end: float | None
) -> None:
    path = tmp_path / "recording"
    path.write_bytes(encoded(format, subtype, channels=2))
    whole, _ = read_samples(str(path))
    locator = str(Locator(str(path), start, end))
    expected = whole[round(start * SAMPLE_RATE) : None if end is None else round(end * SAMPLE_RATE)]
    assert inspect_audio(locator).num_samples == len(expected)
    assert np.array_equal(open_audio(locator)[0].numpy().T, expected)
    content, size = read_audio_file(locator)
    assert np.array_equal(read_samples(content)[0], expected)
    assert size == audio_file_size(locator) == path.stat().st_size
    assert soundfile.info(str(path)).samplerate == SAMPLE_RATE


def test_a_part_of_an_mp3_is_that_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "recording.mp3"
    path.write_bytes(encoded("MP3"))
    whole, _ = read_samples(str(path))
    part, _ = read_samples(f"{path}#t=0.5,1")
    assert np.abs(part - whole[SAMPLE_RATE // 2 : SAMPLE_RATE]).max() < 1e-4


def test_only_the_part_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(speech_like(), 20), SAMPLE_RATE, subtype="PCM_16")
    decoded: list[int] = []
    read = soundfile.SoundFile.read

    def counting(self: soundfile.SoundFile, frames: int = -1, **options: object) -> np.ndarray:
        samples: np.ndarray = read(self, frames, **options)
        decoded.append(len(samples))
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    open_audio(f"{path}#t=3,3.5")
    assert decoded == [SAMPLE_RATE // 2]


@pytest.mark.parametrize("times", ["1,3", "2,2.5", "1,1", "0.5,0.25", "1.25"])
def test_a_part_that_is_not_there_is_refused(tmp_path: Path, times: str) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("WAV"))
    with pytest.raises(AudioError, match=rf"a\.wav#t={times}: .* is no part of its 1\.2500 s"):
        inspect_audio(f"{tmp_path}/a.wav#t={times}")
