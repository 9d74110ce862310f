"""A recipe: everything that one YAML file of conf/ settles. Each family has a kind of its own (cosyflow.families)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cosyflow import families
from cosyflow.config.data import CorpusConf, FilterConf
from cosyflow.config.flow import FlowConfig
from cosyflow.config.gate import GateConf
from cosyflow.config.llm import DPOConfig, LMConfig
from cosyflow.config.mel import MelConf
from cosyflow.config.training import GanTrainConf, TrainConf
from cosyflow.config.vocoder import HiFiGanConfig
from cosyflow.families import facet


def section_of(part: str) -> str:
    """The section of a recipe that says how a part is trained."""
    return families.part(part).conf


def recipe_class(version: str) -> type[Recipe]:
    """The kind of recipe of a family. Raises CosyFlowError when there is no such family."""
    found: type[Recipe] = facet(version, "recipe").RECIPE
    return found


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the families have in common. Unknown keys and wrong types are refused (see cosyflow.config.load)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    version: str
    """The family."""
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
    gate: GateConf = field(default_factory=GateConf)
    """When a trained model becomes the champion."""

    def conf_of(self, part: str) -> TrainConf:
        """How a part is trained."""
        conf: TrainConf = getattr(self, families.family(self.version).part(part).conf)
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
