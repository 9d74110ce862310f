"""The batches of flow and vocoder hold what the official pipeline puts into them, given the same utterances.

Deviations: a batch holds only what its model reads; lengths are int64, not int32; f0 is float32, not float64; the mel
of an utterance has the frames that its tokens stand for, where the official one may have some more (the recorded tokens
do not belong to the audio, so audio is not cut to them here); a vocoder's window is whole mel frames, where the
official one of CosyVoice 2 ends in 480 zeros.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cosyflow.audio.f0 import harvest_f0
from cosyflow.audio.features import MelSettings, mel_spectrogram, pad_to_multiple
from cosyflow.audio.speech import load_speech
from cosyflow.config.recipe import Recipe, recipe_class
from cosyflow.dataset.reader import Utterance
from cosyflow.dataset.speech_reader import SpeechUtterance
from cosyflow.models.flow.batch import FlowExample, build_flow_batch
from cosyflow.training.flow import mel_settings
from cosyflow.training.vocoder_data import WindowCollate

OFFICIAL_WINDOWS = {"cosyvoice": 24576, "cosyvoice2": 24480}  # samples
NAMES = {1: "cosyvoice", 2: "cosyvoice2", 3: "cosyvoice3"}


@dataclass(frozen=True)
class OfficialBatch:
    utts: list[str]
    shapes: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    recipe: Recipe
    wavs: Path

    def waveform(self, utt: str) -> torch.Tensor:
        """As the official pipeline hands it to the mel: padded to whole tokens in versions 2 and 3."""
        waveform = load_speech(str(self.wavs / f"{utt.split('_', 2)[2]}.wav"), self.recipe.sample_rate)
        return waveform if self.recipe.version == "cosyvoice" else pad_to_multiple(waveform, 960)

    @property
    def mel(self) -> MelSettings:
        return mel_settings(self.recipe.mel, self.recipe.sample_rate)


def official_batches(golden_file: Path) -> list[OfficialBatch]:
    info = json.loads(golden_file.read_text())
    tensors = load_file(golden_file.with_suffix(".safetensors"))
    recipe = recipe_class(NAMES[info["version"]])(version=NAMES[info["version"]])
    return [
        OfficialBatch(
            batch["utts"],
            batch["shapes"],
            {name.removeprefix(f"b{n}."): value for name, value in tensors.items() if name.startswith(f"b{n}.")},
            recipe,
            golden_file.parent / "wav",
        )
        for n, batch in enumerate(info["batches"])
    ]


@pytest.mark.golden_files("data/batches_v*_tts*.json")
def test_flow_batches(golden_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for official in official_batches(golden_file):
        monkeypatch.setattr(type(official.recipe.flow), "frame_tolerance", 10**6)  # see the deviations above
        tokens, counts = official.tensors["speech_token"], official.tensors["speech_token_len"]
        examples = [
            FlowExample(
                utt,
                tokens[place, : counts[place]].numpy(),
                mel_spectrogram(official.waveform(utt), official.mel).T.numpy(),
                official.tensors["embedding"][place].numpy(),
            )
            for place, utt in enumerate(official.utts)
        ]
        batch = build_flow_batch(examples, official.recipe.flow)
        ours = {
            "speech_token": batch.token,
            "speech_token_len": batch.token_len,
            "speech_feat": batch.mel,
            "speech_feat_len": batch.mel_len,
            "embedding": batch.embedding,
        }
        for name, value in ours.items():
            shape, dtype = official.shapes[name]
            assert list(value.shape) == shape, name
            if not name.endswith("_len"):
                assert str(value.dtype) == f"torch.{dtype}", name
        for name in ("speech_token", "embedding"):
            assert torch.equal(ours[name], official.tensors[name])
        for name in ("speech_token_len", "speech_feat_len"):
            assert ours[name].tolist() == official.tensors[name].tolist()
        torch.testing.assert_close(
            batch.mel.double().sum(dim=(1, 2)), official.tensors["speech_feat.sum"].double(), rtol=1e-5, atol=0.5
        )


def official_windows(official: OfficialBatch, place: int) -> list[torch.Tensor]:
    """The windows of an utterance with the recorded sum of samples; where the window was drawn is not recorded."""
    waveform = load_speech(
        str(official.wavs / f"{official.utts[place].split('_', 2)[2]}.wav"), official.recipe.sample_rate
    )
    samples = OFFICIAL_WINDOWS[official.recipe.version]
    waveform = torch.nn.functional.pad(waveform, (0, max(0, samples - len(waveform))))
    before = np.concatenate([[0.0], waveform.double().cumsum(0).numpy()])
    sums = before[samples:] - before[:-samples]
    starts = np.flatnonzero(np.abs(sums - official.tensors["speech.sum"][place].item()) < 1e-4)
    ends_whole = 1 if official.recipe.version == "cosyvoice" else 960
    return [pad_to_multiple(waveform[start : start + samples], ends_whole) for start in starts]


@pytest.mark.golden_files("data/batches_v*_gan*.json")
def test_vocoder_batches(golden_file: Path) -> None:
    for official in official_batches(golden_file):
        hop = official.recipe.mel.hop_size
        (_, frames), _ = official.shapes["pitch_feat"]
        collate = WindowCollate(official.mel, frames, seed=0, epoch=0)
        for place, utt in enumerate(official.utts):
            mel_sum = official.tensors["speech_feat.sum"][place].item()
            found = []
            for waveform in official_windows(official, place):
                f0 = harvest_f0(waveform, official.recipe.sample_rate, hop).astype(np.float32)
                nothing = np.zeros(0, np.int64)
                utterance = Utterance(utt, "", nothing, nothing, None, None, None, None)
                batch = collate([SpeechUtterance(utterance, waveform, f0)])
                assert batch is not None
                assert list(batch.waveform.shape) == [1, official.shapes["speech"][0][1]]
                assert list(batch.mel.shape) == [1, *official.shapes["speech_feat"][0][:0:-1]]
                assert list(batch.f0.shape) == [1, frames]
                if abs(batch.mel.double().sum().item() - mel_sum) < 0.5:
                    found.append(batch.f0.double().sum().item())
            assert any(
                f0_sum == pytest.approx(official.tensors["pitch_feat.sum"][place].item(), abs=0.1 * frames)
                for f0_sum in found
            ), utt
