"""Flow and vocoder learn a little recorded speech by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cosyflow.audio.f0 import fast_f0
from cosyflow.audio.features import mel_spectrogram
from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.config.training import GanTrainConf, OptimConf, TrainConf
from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.index import build_index
from cosyflow.dataset.speech_reader import SpeechReader
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.gan import HiFiGan, mel_distance
from cosyflow.text.tokenizer import build_tokenizer
from cosyflow.training.flow import FlowData, FlowMatchingObjective, mel_settings
from cosyflow.training.loop import cross_validate
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.ranks import Ranks
from cosyflow.training.update import Updater
from cosyflow.training.vocoder import AdversarialUpdater, VocoderObjective
from cosyflow.training.vocoder_data import VocoderData
from tests.local.speech_corpus import SPEECH, SpeechCorpus, make_speech_corpus, shortest_speech

ALONE = Ranks(0, 1, torch.device("cpu"))


def open_corpus(corpus: SpeechCorpus, *overrides: str) -> tuple[Recipe, UtteranceIndex]:
    recipe = load_config(corpus.recipe, overrides)
    return recipe, build_index(corpus.data_list, build_tokenizer(recipe.version, corpus.tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["cosyvoice", "cosyvoice2", "cosyvoice3"])
def test_a_flow_learns_eight_utterances(version: str, tmp_path: Path) -> None:
    recipe, index = open_corpus(make_speech_corpus(tmp_path, version, shortest_speech(8)))
    conf = TrainConf(optim="adamw", optim_conf=OptimConf(lr=3e-3), frames_per_step=recipe.flow.mel_frames(500))
    data = FlowData(index, index, recipe, conf, ALONE, LoaderSettings())
    torch.manual_seed(0)
    objective = FlowMatchingObjective(build_flow(recipe.flow))
    updater = Updater(objective, conf, ALONE)
    before = cross_validate(objective, data, ALONE)["loss"]
    update = 0
    for epoch in range(10):
        objective.train()
        for batch in data.batches(epoch, 0):
            updater.update([batch], update, conf.optim_conf.lr, stop=False)
            update += 1
    after = cross_validate(objective, data, ALONE)["loss"]
    assert after < 0.5 * before


WINDOW, UPDATES = 32, 2000
RECIPE_MEL = "{n_fft: 1920}"
# The recipe's bands are 53 Hz apart, hardly show harmonics and leave the pitch of the waveform open: 160 bands up to
# 4 kHz see it. The recipe's distance, which is measured in the end, counts three times as much.
MEL_DISTANCES = (*[RECIPE_MEL] * 3, "{n_fft: 2048, hop_size: 240, win_size: 1024, num_mels: 160, fmax: 4000}")
VOCODER = (
    "hifigan.generator.base_channels=32",
    "hifigan.generator.resblock_kernel_sizes=[3, 7]",
    "hifigan.generator.resblock_dilation_sizes=[[1, 3], [1, 3]]",
    "hifigan.generator.source_resblock_dilation_sizes=[[1, 3], [1, 3], [1, 3]]",
    "hifigan.discriminator.periods=[2, 5]",
    "hifigan.discriminator.period_channels=[4, 8, 16]",
    "hifigan.discriminator.resolutions=[{n_fft: 512, hop_size: 120, win_size: 480}]",
    "hifigan.loss.f0_loss_weight=10.0",
    f"hifigan.loss.mel_spec_transform=[{', '.join(MEL_DISTANCES)}]",
)


def compare_pitch(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """Of two f0 in Hz: their correlation where both are voiced, and how much of the real one's voice is missed."""
    voiced = real > 0
    both = voiced & (generated > 0)
    return float(np.corrcoef(real[both], generated[both])[0, 1]), float(1 - both.sum() / voiced.sum())


@pytest.mark.slow
def test_a_vocoder_learns_one_utterance(tmp_path: Path) -> None:
    """Log-mel distance falls to a quarter and the pitch follows. Four to five minutes of one core.

    The waveform is written beside the corpus.
    """
    files = sorted(SPEECH.rglob("367_130732_000009_000000.wav"))  # 4 s of a lively voice, 180 to 330 Hz
    if not files:
        pytest.skip(f"no recorded speech at {SPEECH}")
    recipe, index = open_corpus(make_speech_corpus(tmp_path, "cosyvoice2", files, f0="fast"), *VOCODER)
    rate = OptimConf(lr=2e-3, betas=(0.8, 0.99))
    conf = GanTrainConf(
        optim="adamw",
        optim_conf=rate,
        optim_d="adamw",
        optim_conf_d=rate,
        grad_clip=1000.0,
        grad_clip_d=100.0,
        frames_per_step=WINDOW,
        window_frames=WINDOW,
    )
    data = VocoderData(index, index, recipe, conf, ALONE, LoaderSettings())
    torch.manual_seed(0)
    objective = VocoderObjective(HiFiGan(recipe.hifigan))
    updater = AdversarialUpdater(objective, conf, ALONE)
    (speech,) = SpeechReader(index, Alignment.of(recipe), embeddings=False, f0=True).read([0])

    def vocode() -> tuple[torch.Tensor, float]:
        mel = mel_spectrogram(speech.waveform, mel_settings(recipe.mel, recipe.sample_rate))
        generator = objective.model.generator
        waveform = generator.inference(mel[None], rng=torch.Generator().manual_seed(0)).waveform[0]
        transform = recipe.hifigan.loss.mel_spec_transform[0]
        return waveform, mel_distance(speech.waveform[None], waveform[None], transform).item()

    before = vocode()[1]
    for update in range(UPDATES):
        windows = [batch for epoch in (2 * update, 2 * update + 1) for batch in data.batches(epoch, 0)]
        falling = rate.lr * min(1.0, 0.1 + 1.8 * (1 - update / UPDATES))  # in the second half
        updater.update(windows, update, falling, stop=False)
    waveform, after = vocode()
    soundfile.write(tmp_path / "vocoded.wav", waveform.numpy(), recipe.sample_rate)
    pitches = [fast_f0(sound, recipe.sample_rate, recipe.mel.hop_size) for sound in (speech.waveform, waveform)]
    correlation, missed = compare_pitch(*pitches)
    print(f"log-mel distance {after / before:.3f} of the first, f0 correlation {correlation:.3f}, missed {missed:.3f}")
    assert after <= 0.25 * before
    assert correlation >= 0.9
    assert missed <= 0.05
    assert soundfile.info(tmp_path / "vocoded.wav").frames == len(speech.waveform)
