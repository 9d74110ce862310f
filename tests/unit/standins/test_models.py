"""The stand-ins have the signatures of the real models and outputs that depend on what is heard."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM

from cosyflow.audio.features import fbank, whisper_log_mel
from cosyflow.cli import main
from cosyflow.errors import CosyFlowError
from cosyflow.extract.inputs import tokenizer_log_mel
from cosyflow.families import families
from cosyflow.pretrained import STAND_IN_KEY, STAND_INS_MARK
from cosyflow.standins.models import make_stand_ins
from cosyflow.standins.onnx_models import QUANTISERS
from cosyflow.text.tokenizer import build_tokenizer

ROOT = Path(__file__).resolve().parents[3]
SPEECH = ROOT.parent / "shared" / "speech" / "LibriTTS-mini"
TOKENIZERS = ("speech_tokenizer_v1.onnx", "speech_tokenizer_v2.onnx")
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stand-ins")
    make_stand_ins(directory)
    return directory


@pytest.fixture(scope="module")
def sessions(directory: Path) -> dict[str, onnxruntime.InferenceSession]:
    providers = ["CPUExecutionProvider"]
    return {path.name: onnxruntime.InferenceSession(path, providers=providers) for path in directory.glob("*.onnx")}


@cache
def voice(seed: int, seconds: float) -> torch.Tensor:
    """Something like speech: harmonics of a gliding pitch under formants that change every 120 ms, with pauses."""
    random = np.random.default_rng(seed)
    samples = int(16000 * seconds)
    time = np.arange(samples) / 16000
    phase = 2 * math.pi * np.cumsum(random.uniform(90, 220) * (1 + 0.2 * np.sin(2 * time))) / 16000
    sound = np.zeros(samples)
    for start in range(0, samples, 1920):
        part = slice(start, start + 1920)
        formants = random.uniform((250, 900, 2200), (900, 2200, 3500))
        loudness = random.choice([0.0, 0.05, 0.3], p=[0.15, 0.25, 0.6])
        for harmonic in range(1, 16):
            weight = sum(math.exp(-(((harmonic * 150 - formant) / 300) ** 2)) for formant in formants)
            sound[part] += loudness * weight * np.sin(harmonic * phase[part])
    return torch.from_numpy(sound / 4 + random.normal(0, 1e-4, samples)).float()


def tokens(session: onnxruntime.InferenceSession, log_mel: Floats) -> NDArray[np.int32]:
    length = np.array([log_mel.shape[1]], np.int32)
    return session.run(None, {"feats": log_mel[None], "feats_length": length})[0]


def embedding(session: onnxruntime.InferenceSession, waveforms: list[torch.Tensor]) -> Floats:
    features = [fbank(waveform) for waveform in waveforms]
    return session.run(None, {"input": torch.stack([each - each.mean(0) for each in features]).numpy()})[0]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 400))
def test_token_count_is_floor_of_frames(
    sessions: dict[str, onnxruntime.InferenceSession], name: str, frames: int
) -> None:
    log_mel = np.random.default_rng(frames).normal(0, 0.5, (128, frames)).astype(np.float32)
    ids = tokens(sessions[name], log_mel)
    assert ids.shape == (1, frames // {"speech_tokenizer_v1.onnx": 2, "speech_tokenizer_v2.onnx": 4}[name])
    assert ids.dtype == np.int32
    assert ((ids >= 0) & (ids < QUANTISERS[name].codebook_size)).all()


def test_frames_behind_the_length_do_not_count(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    session = sessions["speech_tokenizer_v2.onnx"]
    log_mel = whisper_log_mel(voice(0, 2.0)).numpy()
    longer = np.concatenate([log_mel, np.ones((128, 50), np.float32)], axis=1)[None]
    ids = session.run(None, {"feats": longer, "feats_length": np.array([log_mel.shape[1]], np.int32)})[0]
    assert (ids == tokens(session, log_mel)).all()


@pytest.mark.medium
@pytest.mark.parametrize("name", TOKENIZERS)
def test_codes_are_far_from_uniform(sessions: dict[str, onnxruntime.InferenceSession], name: str) -> None:
    spoken = [tokens(sessions[name], whisper_log_mel(voice(seed, 6.0)).numpy())[0] for seed in range(16)]
    counts = Counter(int(token) for ids in spoken for token in ids)
    share = np.array(list(counts.values())) / counts.total()
    entropy = -(share * np.log(share)).sum()
    assert len(counts) >= 200
    assert entropy < 0.85 * math.log(QUANTISERS[name].codebook_size)
    again = float(np.mean([np.mean(ids[1:] == ids[:-1]) for ids in spoken]))
    assert again > 5 * float((share**2).sum()), "neighbours are equal far more often than by chance"


@pytest.mark.skipif(not SPEECH.is_dir(), reason="no recorded speech beside the checkout")
@pytest.mark.parametrize("name", TOKENIZERS)
def test_codes_are_many_on_recorded_speech(sessions: dict[str, onnxruntime.InferenceSession], name: str) -> None:
    used: set[int] = set()
    for wav in sorted(SPEECH.rglob("*.wav"))[:30]:
        used.update(tokens(sessions[name], tokenizer_log_mel(str(wav)).numpy())[0].tolist())
    assert len(used) >= 1000


def test_embedding_is_of_the_voice(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    voices = [voice(seed, 8.0) for seed in range(6)]
    halves = [
        embedding(sessions["campplus.onnx"], [each[side] for each in voices])
        for side in (slice(0, 64000), slice(64000, None))
    ]
    first, second = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in halves)
    assert first.shape == (6, 192)
    similar = first @ second.T
    assert similar.diagonal().min() > np.median(similar[~np.eye(6, dtype=bool)])


def test_embedding_does_not_depend_on_its_batch(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    waveforms = [voice(seed, 1.0) for seed in range(3)]
    alone = np.concatenate([embedding(sessions["campplus.onnx"], [each]) for each in waveforms])
    np.testing.assert_allclose(embedding(sessions["campplus.onnx"], waveforms), alone, atol=1e-5)


def test_signatures_and_marks(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    campplus, tokenizer = sessions["campplus.onnx"], sessions["speech_tokenizer_v2.onnx"]
    assert [(each.shape, each.type) for each in campplus.get_inputs()] == [(["B", "T", 80], "tensor(float)")]
    assert [each.shape for each in campplus.get_outputs()] == [["B", 192]]
    assert [(each.shape, each.type) for each in tokenizer.get_inputs()] == [
        ([1, 128, "T"], "tensor(float)"),
        ([1], "tensor(int32)"),
    ]
    for session in sessions.values():
        assert session.get_modelmeta().custom_metadata_map[STAND_IN_KEY] == "seed 0"


def test_quantisers_have_the_released_rates_and_codebooks() -> None:
    for real in (each.speech_tokenizer for each in families()):
        quantiser = QUANTISERS[real.file]
        assert quantiser.codebook_size == real.codebook_size
        assert 100 / quantiser.stride == real.tokens_per_second


def test_a_seed_settles_every_byte(directory: Path, tmp_path: Path) -> None:
    make_stand_ins(tmp_path / "same", seed=0)
    make_stand_ins(tmp_path / "other", seed=1)
    mark = (directory / STAND_INS_MARK).read_text()
    assert (tmp_path / "same" / STAND_INS_MARK).read_text() == mark
    differing = {
        name
        for name, digest in json.loads(mark)["files"].items()
        if json.loads((tmp_path / "other" / STAND_INS_MARK).read_text())["files"][name] != digest
    }
    random = {
        "campplus.onnx",
        *(each.speech_tokenizer.file for each in families()),
        "CosyVoice-BlankEN/model.safetensors",
    }
    assert differing == random


def test_qwen2_folder_loads_in_transformers_and_fits_the_tiny_recipe(directory: Path) -> None:
    folder = directory / "CosyVoice-BlankEN"
    model = Qwen2ForCausalLM.from_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    loaded = model.state_dict()
    assert loaded.keys() == {*stored, "lm_head.weight"}
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())
    assert torch.equal(loaded["lm_head.weight"], stored["model.embed_tokens.weight"])
    recipe = yaml.safe_load((ROOT / "conf" / "cosyvoice2.tiny.yaml").read_text())
    config = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in recipe["llm"]["qwen2"]} == recipe["llm"]["qwen2"]
    assert build_tokenizer("cosyvoice3", str(directory)).vocab_size <= config["vocab_size"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "stand ins"
    assert main(["stand-ins", str(target)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert sorted(listed) == sorted(str(path) for path in target.rglob("*") if path.is_file())
    assert main(["stand-ins", str(target)]) == 0


def test_real_models_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "campplus.onnx").write_bytes(b"the real one")
    assert main(["stand-ins", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["campplus.onnx"]
    with pytest.raises(CosyFlowError, match="is a file"):
        make_stand_ins(tmp_path / "campplus.onnx")
