"""One rule for tokens, frames and samples, where data is made and where it is read."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.index import build_index
from cosyflow.dataset.parquet import make_parquet
from cosyflow.dataset.speech_reader import SpeechReader
from cosyflow.errors import CosyFlowError
from cosyflow.families.cosyvoice.recipe import CosyVoice1Recipe
from cosyflow.families.cosyvoice2.recipe import CosyVoice2Recipe

RATE = 24000
VERSION1, VERSION2 = (
    Alignment.of(CosyVoice1Recipe(version="cosyvoice")),
    Alignment.of(CosyVoice2Recipe(version="cosyvoice2")),
)


@pytest.mark.parametrize(("alignment", "tokens", "frames"), [(VERSION1, 50, 86), (VERSION2, 25, 50)])
def test_audio_is_trimmed_or_padded_to_its_tokens(alignment: Alignment, tokens: int, frames: int) -> None:
    second = torch.ones(alignment.sample_rate)
    for given in (second, second[:-300], torch.cat([second, second[:300]])):
        aligned = alignment.align(given, tokens, "utt")
        assert len(aligned) == frames * alignment.hop_size
        kept = min(len(given), len(aligned))
        assert aligned[:kept].all()
        assert not aligned[kept:].any()


@pytest.mark.parametrize("tokens", [0, 20, 30, 100])
def test_audio_that_does_not_belong_to_its_tokens_is_refused(tokens: int) -> None:
    with pytest.raises(CosyFlowError, match=rf"utterance mine: has {tokens} speech tokens for 1.00 s of audio"):
        VERSION2.align(torch.zeros(RATE), tokens, "mine")


def sung(seconds: float, pitch: float) -> bytes:
    time = np.arange(int(seconds * RATE)) / RATE
    stream = io.BytesIO()
    wave = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8)) * 0.1 if pitch else np.zeros(len(time))
    soundfile.write(stream, wave.astype(np.float32), RATE, format="WAV")
    return stream.getvalue()


def write_source(directory: Path, audio: dict[str, bytes], tokens: dict[str, int]) -> str:
    directory.mkdir()
    for utt, content in audio.items():
        (directory / f"{utt}.wav").write_bytes(content)
    for name, value in (("wav.scp", f"{directory}/{{}}.wav"), ("text", "words"), ("utt2spk", "spk")):
        (directory / name).write_text("".join(f"{utt} {value.format(utt)}\n" for utt in sorted(audio)))
    torch.save({utt: list(range(count)) for utt, count in tokens.items()}, directory / "utt2speech_token.pt")
    torch.save({utt: [1.0] * 192 for utt in audio}, directory / "utt2embedding.pt")
    torch.save({"spk": [1.0] * 192}, directory / "spk2embedding.pt")
    return str(directory)


class OneToken:
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [[1] for _ in texts]


AUDIO = {"silent": sung(1.0, 0), "high": sung(1.02, 220), "low": sung(0.98, 110), "odd": sung(2.0, 150)}
TOKENS = {"silent": 25, "high": 25, "low": 25, "odd": 25}


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.medium
def test_the_parquet_stage_measures_f0_and_names_what_is_misaligned(tmp_path: Path, num_processes: int) -> None:
    source, output = write_source(tmp_path / "source", AUDIO, TOKENS), tmp_path / "shards"
    result = make_parquet(
        source, source, source, str(output), 2, num_processes, max_reject_share=0.3, alignment=VERSION2, f0="fast"
    )
    assert (result.counts["outputs"], result.counts["rejects"]) == (3, 1)
    assert "odd\thas 25 speech tokens for 2.00 s of audio" in (output / "rejects.tsv").read_text()

    index = build_index(str(output / "data.list"), OneToken())
    voiced = dict(zip(index.utts, index.voiced_frames.tolist(), strict=True))
    assert voiced.pop("silent") == 0
    assert all(count >= 45 for count in voiced.values())
    for speech in SpeechReader(index, VERSION2, f0=True).read(range(len(index))):
        assert len(speech.waveform) == 50 * 480
        assert speech.f0 is not None
        assert len(speech.f0) == 50
        pitch = {"high": 220.0, "low": 110.0, "silent": 0.0}[speech.utterance.utt]
        assert np.median(speech.f0) == pytest.approx(pitch, rel=0.01)


def test_shards_without_f0_have_the_official_columns(tmp_path: Path) -> None:
    source, output = write_source(tmp_path / "source", {"high": AUDIO["high"]}, TOKENS), tmp_path / "shards"
    make_parquet(source, source, source, str(output), alignment=VERSION2)
    index = build_index(str(output / "data.list"), OneToken())
    assert index.voiced_frames is None
    (speech,) = SpeechReader(index, VERSION2).read([0])
    assert speech.f0 is None


def test_f0_of_another_recipe_is_refused_where_it_is_read(tmp_path: Path) -> None:
    source, output = write_source(tmp_path / "source", {"high": AUDIO["high"]}, {"high": 50}), tmp_path / "shards"
    make_parquet(source, source, source, str(output), alignment=VERSION1, f0="fast")
    index = build_index(str(output / "data.list"), OneToken())
    with pytest.raises(CosyFlowError, match=r"utterance high: has 50 speech tokens for 1\.02 s"):
        SpeechReader(index, VERSION2, f0=True).read([0])


def test_other_settings_make_shards_anew(tmp_path: Path) -> None:
    source, output = write_source(tmp_path / "source", {"high": AUDIO["high"]}, TOKENS), tmp_path / "shards"
    digests = []
    for f0 in ("none", "fast", "fast"):
        digests.append(make_parquet(source, source, source, str(output), alignment=VERSION2, f0=f0).digest)
    assert digests[0] != digests[1] == digests[2]


def test_f0_needs_to_know_the_frames(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", {"high": AUDIO["high"]}, TOKENS)
    with pytest.raises(CosyFlowError, match="--f0 fast: needs --config and the speech tokens"):
        make_parquet(source, source, source, str(tmp_path / "shards"), f0="fast")
    assert json.dumps(VERSION2.identity) == "[24000, 480, 25, 2000]"
