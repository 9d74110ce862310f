"""Flow and vocoder learn a little recorded speech by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyworld
import soundfile
import torch

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
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.flow import FlowData, FlowMatchingObjective, mel_settings
from cosyflow.training.loop import Updater, cross_validate
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.ranks import Ranks
from cosyflow.training.vocoder import VocoderObjective
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
    updater = Updater(objective, conf, TorchDDP(ALONE))
    before = cross_validate(objective, data, ALONE)["loss"]
    update = 0
    for epoch in range(10):
        objective.train()
        for batch in data.batches(epoch, 0):
            updater.update([batch], update)
            update += 1
    after = cross_validate(objective, data, ALONE)["loss"]
    assert after < 0.5 * before


WINDOW, UPDATES = 96, 1600
# The recipe's mel moves by one frame, 20 ms, and its bands are as wide as the frame rate, 50 Hz: to it a burst in every
# frame, without any pitch, sounds like a voice. A shorter window sees the bursts, a longer one with narrow bands the
# harmonics.
BURSTS = "{n_fft: 512, hop_size: 120, win_size: 480, num_mels: 40}"
HARMONICS = "{n_fft: 2048, hop_size: 300, win_size: 2048, num_mels: 160, fmax: 4000}"
VOCODER = (
    "hifigan.generator.base_channels=32",
    "hifigan.generator.nsf_alpha=0.5",  # a louder source: in so few updates the generator hardly uses the recipe's
    "hifigan.generator.resblock_kernel_sizes=[3, 7]",
    "hifigan.generator.resblock_dilation_sizes=[[1, 3], [1, 3]]",
    "hifigan.generator.source_resblock_dilation_sizes=[[1, 3], [1, 3], [1, 3]]",
    "hifigan.discriminator.periods=[2, 5]",
    "hifigan.discriminator.period_channels=[4, 8, 16]",
    "hifigan.discriminator.resolutions=[{n_fft: 1024, hop_size: 240, win_size: 960}]",
    "hifigan.loss.f0_loss_weight=10.0",
    f"hifigan.loss.mel_spec_transform=[{{n_fft: 1920}}, {BURSTS}, {HARMONICS}, {HARMONICS}]",
)


def raw_harvest(waveform: torch.Tensor, sample_rate: int, hop_size: int) -> np.ndarray:
    """WORLD's Harvest as it is, in Hz."""
    f0, _ = pyworld.harvest(waveform.double().numpy(), sample_rate, frame_period=1000 * hop_size / sample_rate)
    return np.asarray(f0)


def compare_pitch(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """Of two f0 in Hz: their correlation where both are voiced, and how much of the real one's voice is missed."""
    voiced = real > 0
    both = voiced & (generated > 0)
    return float(np.corrcoef(real[both], generated[both])[0, 1]), float(1 - both.sum() / voiced.sum())


@pytest.mark.slow
@pytest.mark.long
def test_a_vocoder_learns_one_utterance(tmp_path: Path) -> None:
    """Log-mel distance falls to a quarter and the pitch follows, by Harvest.

    Four to five minutes of one core. The waveform is written beside the corpus.
    """
    # 4 s of a lively voice, 130 to 360 Hz. On many recordings Harvest does not agree with itself: where noise 20 dB
    # below the speech is added, the correlation with what it measured before may fall to 0.4. Here it is 0.999.
    files = sorted(SPEECH.rglob("3080_5032_000003_000000.wav"))
    if not files:
        pytest.skip(f"no recorded speech at {SPEECH}")
    recipe, index = open_corpus(make_speech_corpus(tmp_path, "cosyvoice2", files, f0="harvest"), *VOCODER)
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
    updater = Updater(objective, conf, TorchDDP(ALONE))
    (speech,) = SpeechReader(index, Alignment.of(recipe), embeddings=False, f0=True).read([0])

    def vocode() -> tuple[torch.Tensor, float]:
        mel = mel_spectrogram(speech.waveform, mel_settings(recipe.mel, recipe.sample_rate))
        generator = objective.model.generator
        waveform = generator.inference(mel[None], rng=torch.Generator().manual_seed(0)).waveform[0]
        transform = recipe.hifigan.loss.mel_spec_transform[0]
        return waveform, mel_distance(speech.waveform[None], waveform[None], transform).item()

    before = vocode()[1]
    for update in range(UPDATES):
        falling = rate.lr * min(1.0, 0.1 + 1.8 * (1 - update / UPDATES))  # in the second half
        updater.update(list(data.batches(update, 0)), update, rates=[rate.lr, falling])
    waveform, after = vocode()
    soundfile.write(tmp_path / "vocoded.wav", waveform.numpy(), recipe.sample_rate)
    assert soundfile.info(tmp_path / "vocoded.wav").frames == len(speech.waveform)
    print(f"log-mel distance {after / before:.3f} of the first")
    assert after <= 0.25 * before

    of_both = [raw_harvest(sound, recipe.sample_rate, recipe.mel.hop_size) for sound in (speech.waveform, waveform)]
    correlation, missed = compare_pitch(*of_both)
    print(f"f0 correlation {correlation:.3f}, missed {missed:.3f}")
    assert correlation >= 0.9
    assert missed <= 0.15
