"""A recipe: everything that one YAML file of conf/ settles, for each version of CosyVoice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cosyflow.config import vocoder
from cosyflow.config.data import CorpusConf, FilterConf
from cosyflow.config.flow import CosyVoice1FlowConfig, CosyVoice2FlowConfig, CosyVoice3FlowConfig, FlowConfig
from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, DPOConfig, LMConfig
from cosyflow.config.mel import MelConf
from cosyflow.config.training import GanTrainConf, TrainConf
from cosyflow.config.transformer import CosyVoice1LMConfig
from cosyflow.config.vocoder import GanLossConfig, HiFiGanConfig, MelLossConfig

Version = Literal["cosyvoice", "cosyvoice2", "cosyvoice3"]
Part = Literal["llm", "flow", "hifigan"]


def section_of(part: str) -> str:
    """The section of a recipe that says how a part is trained."""
    return "train_conf_gan" if part == "hifigan" else "train_conf"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the versions have in common. Unknown keys and wrong types are refused (see cosyflow.config.load)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    version: Version
    sample_rate: int
    """Hz of the audio that is synthesised."""
    token_frame_rate: int
    """Speech tokens a second."""
    corpus: CorpusConf = field(default_factory=CorpusConf)
    filter: FilterConf = field(default_factory=FilterConf)
    use_spk_embedding: bool = False
    """Train with the speaker's mean embedding instead of the utterance's own."""
    mel: MelConf = field(default_factory=MelConf)
    llm: LMConfig
    dpo: DPOConfig = field(default_factory=DPOConfig)
    """Of the llm when it is trained on preferences."""
    flow: FlowConfig
    hifigan: HiFiGanConfig
    train_conf: TrainConf = field(default_factory=TrainConf)
    """Of the llm and the flow."""
    train_conf_gan: GanTrainConf = field(default_factory=GanTrainConf)
    """Of the vocoder."""

    def conf_of(self, part: str) -> TrainConf:
        """How a part is trained."""
        conf: TrainConf = getattr(self, section_of(part))
        return conf

    def __post_init__(self) -> None:
        """Refuses parts that do not fit each other."""
        generator = self.hifigan.generator
        if self.llm.layout.speech_ids > self.flow.vocab_size:
            raise ValueError(
                f"flow.vocab_size: {self.flow.vocab_size} is less than the {self.llm.layout.speech_ids} speech tokens"
                " of the llm"
            )
        if self.mel.fmax is not None and self.mel.fmax > self.sample_rate / 2:
            raise ValueError(f"mel.fmax: {self.mel.fmax} is above half of the sample_rate {self.sample_rate}")
        if self.flow.output_size != self.mel.num_mels:
            raise ValueError(f"flow.output_size: {self.flow.output_size} is not mel.num_mels {self.mel.num_mels}")
        if generator.in_channels != self.mel.num_mels:
            raise ValueError(
                f"hifigan.generator.in_channels: {generator.in_channels} is not mel.num_mels {self.mel.num_mels}"
            )
        if generator.sampling_rate != self.sample_rate:
            raise ValueError(
                f"hifigan.generator.sampling_rate: {generator.sampling_rate} is not the sample_rate {self.sample_rate}"
            )
        if generator.samples_per_frame != self.mel.hop_size:
            raise ValueError(
                f"hifigan.generator.upsample_rates: they make {generator.samples_per_frame} samples of a mel frame,"
                f" mel.hop_size is {self.mel.hop_size}"
            )
        self._check_window()
        seconds = 1000
        frames, wanted = self.flow.mel_frames(seconds * self.token_frame_rate), seconds * self.sample_rate
        if abs(frames * self.mel.hop_size - wanted) > self.mel.hop_size:
            raise ValueError(
                f"token_frame_rate: the flow makes {frames / seconds:g} mel frames of {self.token_frame_rate} speech"
                f" tokens, a second has {self.sample_rate / self.mel.hop_size:g}"
            )

    def _check_window(self) -> None:
        """Every transform of the vocoder's losses needs a training window to look into."""
        losses = [(transform.n_fft + 1) // 2 for transform in self.hifigan.loss.mel_spec_transform]
        discriminators = [resolution.n_fft // 2 + 1 for resolution in self.hifigan.discriminator.resolutions]
        samples = self.train_conf_gan.window_frames * self.mel.hop_size
        if samples < max(losses + discriminators):
            raise ValueError(
                f"train_conf_gan.window_frames: {samples} samples are too short for the transforms of hifigan"
            )


def _cosyvoice1_hifigan() -> HiFiGanConfig:
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
    hifigan: HiFiGanConfig = field(default_factory=_cosyvoice1_hifigan)
    train_conf_gan: GanTrainConf = field(default_factory=lambda: GanTrainConf(window_frames=96))


@dataclass(frozen=True, kw_only=True)
class CosyVoice2Recipe(Recipe):
    """CosyVoice 2."""

    version: Literal["cosyvoice2"]
    sample_rate: int = 24000
    token_frame_rate: int = 25
    llm: CosyVoice2LMConfig = field(default_factory=CosyVoice2LMConfig)
    flow: CosyVoice2FlowConfig = field(default_factory=CosyVoice2FlowConfig)
    hifigan: HiFiGanConfig = field(default_factory=HiFiGanConfig)


@dataclass(frozen=True, kw_only=True)
class CosyVoice3Recipe(Recipe):
    """CosyVoice 3."""

    version: Literal["cosyvoice3"]
    sample_rate: int = 24000
    token_frame_rate: int = 25
    mel: MelConf = field(default_factory=lambda: MelConf(fmax=None))
    llm: CosyVoice3LMConfig = field(default_factory=CosyVoice3LMConfig)
    flow: CosyVoice3FlowConfig = field(default_factory=CosyVoice3FlowConfig)
    hifigan: HiFiGanConfig = field(default_factory=lambda: HiFiGanConfig(generator=vocoder.cosyvoice3()))


RECIPES: dict[str, type[Recipe]] = {
    "cosyvoice": CosyVoice1Recipe,
    "cosyvoice2": CosyVoice2Recipe,
    "cosyvoice3": CosyVoice3Recipe,
}
