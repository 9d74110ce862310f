"""Adversarial training of the vocoder: discriminators and generator change in turns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch

from cosyflow.config.training import GanTrainConf, TrainConf
from cosyflow.models.vocoder.gan import (
    DiscriminatorLoss,
    GeneratorLoss,
    HiFiGan,
    discriminator_turn,
    generator_turn,
)
from cosyflow.models.vocoder.hift import GeneratedSpeech
from cosyflow.models.vocoder.source import SourceNoise
from cosyflow.training.objective import Batch, Objective, Outcome, Turn, zero_loss
from cosyflow.training.vocoder_data import WindowBatch


class VocoderObjective(Objective):
    """The losses of both turns, on speech that is generated once for both; the targets are windows, of equal length.

    Called with a batch, as cross validation does, its `loss` is only what does not depend on the discriminators: the
    weighted distances of mel and f0. Those of different epochs can be compared. Noise is then fixed for an utterance.

    Args:
        model: generator and discriminators.
        compute_dtype: bfloat16 computes under autocast.
        warmup: first updates in which only the discriminators change.
    """

    metrics = (*GeneratorLoss._fields[1:], "discriminator")
    model: HiFiGan

    def __init__(self, model: HiFiGan, compute_dtype: str = "float32", warmup: int = 0) -> None:
        super().__init__()
        self.model = model
        self.compute_dtype = compute_dtype
        self.warmup = warmup

    def turns(self, conf: TrainConf) -> Sequence[Turn]:
        of_discriminators = cast(GanTrainConf, conf).of_discriminators
        return (
            Turn("discriminator", self.model.discriminator, of_discriminators),
            Turn("generator", self.model.generator, conf, first_update=self.warmup),
        )

    def losses(self, batch: Batch | None) -> Iterator[Outcome]:
        if batch is None:
            yield Outcome(zero_loss(self.model.discriminator), 0)
            nothing = zero_loss(self.model.generator)
            yield Outcome(nothing, 0, {name: nothing.detach() for name in self.metrics})
            return
        windows = cast(WindowBatch, batch)
        generated = self.generate(windows)
        of_discriminator = self.judge(windows, generated)
        count = len(windows.utterances)
        yield Outcome(of_discriminator.total * count, count)
        yield self.outcome(windows, of_discriminator, self.convince(windows, generated))

    def compute(self, batch: Batch) -> Outcome:
        windows = cast(WindowBatch, batch)
        generated = self.generate(windows, self._fixed_noise(windows))
        of_discriminator = self.judge(windows, generated)
        of_generator = self.convince(windows, generated)
        outcome = self.outcome(windows, of_discriminator, of_generator)
        conf = self.model.config.loss
        lasting = conf.multi_mel_spectral_recon_loss_weight * of_generator.mel + conf.f0_loss_weight * of_generator.f0
        return Outcome(lasting * outcome.count, outcome.count, outcome.sums)

    def generate(self, windows: WindowBatch, noise: SourceNoise | None = None) -> GeneratedSpeech:
        """Speech from the windows' mel; without `noise`, with noise of torch's generator."""
        with self._reduced(windows):
            generated: GeneratedSpeech = self.model.generator(windows.mel, noise)
        return generated

    def judge(self, windows: WindowBatch, generated: GeneratedSpeech) -> DiscriminatorLoss:
        """The discriminators' turn."""
        with self._reduced(windows):
            return discriminator_turn(
                self.model.discriminator, windows.waveform, generated.waveform, self.model.config.loss
            )

    def convince(self, windows: WindowBatch, generated: GeneratedSpeech) -> GeneratorLoss:
        """The generator's turn, in which the discriminators are frozen."""
        with self._reduced(windows):
            return generator_turn(
                self.model.discriminator, windows.waveform, generated, windows.f0, self.model.config.loss
            )

    def outcome(
        self, windows: WindowBatch, of_discriminator: DiscriminatorLoss, of_generator: GeneratorLoss
    ) -> Outcome:
        """Both turns in numbers; losses are means over windows."""
        count = len(windows.utterances)
        values = {**of_generator._asdict(), "discriminator": of_discriminator.total}
        del values["total"]
        sums = {name: value.detach() * count for name, value in values.items()}
        return Outcome(of_generator.total * count, count, sums)

    def _reduced(self, windows: WindowBatch) -> Any:
        bfloat16 = self.compute_dtype == "bfloat16"
        return torch.autocast(windows.mel.device.type, torch.bfloat16) if bfloat16 else nullcontext()

    def _fixed_noise(self, windows: WindowBatch) -> SourceNoise:
        """Noise that an utterance has in every epoch and every batch."""
        cpu = torch.device("cpu")
        source = self.model.generator.m_source
        frames = windows.mel.shape[2]
        drawn = [source.draw_noise(1, frames, cpu, _generator(utt)) for utt in windows.utterances]
        phases = [noise.initial_phase for noise in drawn if noise.initial_phase is not None]
        device = windows.mel.device
        return SourceNoise(
            torch.cat([noise.additive for noise in drawn]).to(device),
            torch.cat(phases).to(device) if phases else None,
        )


def _generator(utterance: str) -> torch.Generator:
    digest = hashlib.sha256(utterance.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
