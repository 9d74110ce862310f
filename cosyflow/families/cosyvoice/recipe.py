"""The recipes of CosyVoice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cosyflow.config import vocoder
from cosyflow.config.flow import CosyVoice1FlowConfig
from cosyflow.config.mel import MelConf
from cosyflow.config.recipe import Recipe
from cosyflow.config.training import GanTrainConf
from cosyflow.config.transformer import CosyVoice1LMConfig
from cosyflow.config.vocoder import GanLossConfig, HiFiGanConfig, MelLossConfig


def _hifigan() -> HiFiGanConfig:
    mel = MelLossConfig(n_fft=1024, sampling_rate=22050, hop_size=256, win_size=1024)
    return HiFiGanConfig(generator=vocoder.cosyvoice1(), loss=GanLossConfig(mel_spec_transform=(mel,)))


@dataclass(frozen=True, kw_only=True)
class CosyVoice1Recipe(Recipe):
    """CosyVoice."""

    version: Literal["cosyvoice"]
    sample_rate: int = 22050
    token_frame_rate: int = 50
    mel: MelConf = field(default_factory=lambda: MelConf(n_fft=1024, hop_size=256, win_size=1024))
    llm: CosyVoice1LMConfig = field(default_factory=CosyVoice1LMConfig)
    flow: CosyVoice1FlowConfig = field(default_factory=CosyVoice1FlowConfig)
    hifigan: HiFiGanConfig = field(default_factory=_hifigan)
    train_conf_gan: GanTrainConf = field(default_factory=lambda: GanTrainConf(window_frames=96))


RECIPE = CosyVoice1Recipe
