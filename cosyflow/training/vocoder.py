"""Adversarial training of the vocoder: its objective, and how generator and discriminators change in turns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch

from cosyflow.config.training import GanTrainConf
from cosyflow.models.vocoder.gan import (
    DiscriminatorLoss,
    GeneratorLoss,
    HiFiGan,
    discriminator_turn,
    generator_turn,
)
from cosyflow.models.vocoder.hift import GeneratedSpeech
from cosyflow.models.vocoder.source import SourceNoise
from cosyflow.training.objective import Batch, Objective, Outcome
from cosyflow.training.ranks import Ranks
from cosyflow.training.schedules import learning_rate
from cosyflow.training.update import UpdateReport, UpdateStrategy, build_optimizer, scale_and_clip
from cosyflow.training.vocoder_data import WindowBatch


class VocoderObjective(Objective):
    """The losses of both turns; the targets are windows, of equal length.

    Called with a batch, as cross validation does, its `loss` is only what does not depend on the discriminators: the
    weighted distances of mel and f0. Those of different epochs can be compared. Noise is then fixed for an utterance.
    """

    metrics = (*GeneratorLoss._fields[1:], "discriminator")
    model: HiFiGan

    def __init__(self, model: HiFiGan, compute_dtype: str = "float32") -> None:
        super().__init__()
        self.model = model
        self.compute_dtype = compute_dtype

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
        sums = {name: value.detach() * count for name, value in values.items()}
        return Outcome(sums.pop("total"), count, sums)

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


class OptimizerPair:
    """The optimizers of generator and discriminators, with one state for a checkpoint."""

    def __init__(self, generator: torch.optim.Optimizer, discriminator: torch.optim.Optimizer) -> None:
        self.generator = generator
        self.discriminator = discriminator

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.state_dict(), "discriminator": self.discriminator.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])


class AdversarialUpdater(UpdateStrategy):
    """Changes the discriminators, then the generator, by speech that is generated once for both turns.

    In the first `warmup` updates only the discriminators change. Gradients are summed over the ranks after each turn:
    ranks without a window then need no pass of their own.

    Attributes:
        optimizer: its state belongs into a checkpoint.
    """

    objective: VocoderObjective
    conf: GanTrainConf
    optimizer: OptimizerPair

    def __init__(self, objective: VocoderObjective, conf: GanTrainConf, ranks: Ranks, warmup: int = 0) -> None:
        super().__init__(objective, conf, ranks)
        self.warmup = warmup
        self.optimizer = OptimizerPair(
            build_optimizer(objective.model.generator, conf),
            build_optimizer(objective.model.discriminator, conf.of_discriminators),
        )

    def update(self, batches: Sequence[Batch | None], update: int, rate: float, stop: bool) -> list[UpdateReport]:
        """Changes the weights once; `rate` is the generator's. See `Updater.update`."""
        real = [cast(WindowBatch, batch) for batch in batches if batch is not None]
        targets = sum(len(batch.utterances) for batch in real)
        total = torch.tensor(float(targets), dtype=torch.float64, device=self.ranks.device)
        scale = (1.0 / self.ranks.sum_(total).clamp(min=1.0)).float()

        is_warm = update >= self.warmup
        windows, speech = [], []
        for number, batch in enumerate(real):
            self._seed(update, number)
            windows.append(batch.to(self.ranks.device, non_blocking=True))
            with torch.set_grad_enabled(is_warm):
                speech.append(self.objective.generate(windows[-1]))

        self.optimizer.discriminator.zero_grad(set_to_none=True)
        of_discriminator = []
        for batch, generated in zip(windows, speech, strict=True):
            loss = self.objective.judge(batch, generated)
            (loss.total * len(batch.utterances)).backward()
            of_discriminator.append(loss)
        rate_d = learning_rate(self.conf.of_discriminators, update)
        self._step(self.optimizer.discriminator, scale, self.conf.grad_clip_d, rate_d)

        self.optimizer.generator.zero_grad(set_to_none=True)
        outcomes = []
        for batch, generated, judged in zip(windows, speech, of_discriminator, strict=True):
            with torch.set_grad_enabled(is_warm):
                convinced = self.objective.convince(batch, generated)
            if is_warm:
                (convinced.total * len(batch.utterances)).backward()
            outcomes.append(self.objective.outcome(batch, judged, convinced))
        norm = torch.zeros((), device=self.ranks.device)
        if is_warm:
            norm = self._step(self.optimizer.generator, scale, self.conf.grad_clip, rate)

        tokens = sum(batch.num_tokens for batch in real)
        zero = torch.zeros((), device=self.ranks.device)
        nothing = Outcome(zero, 0, dict.fromkeys(self.objective.metrics, zero))
        totals = self._total([targets, tokens, 0.0, float(stop)], outcomes or [nothing])
        return self._settle(update, rate, real, outcomes, totals, norm)

    def _step(self, optimizer: torch.optim.Optimizer, scale: torch.Tensor, limit: float, rate: float) -> torch.Tensor:
        """Sums gradients over the ranks, clips them and steps, unless they are not finite: their norm []."""
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [cast(torch.Tensor, weight.grad) for weight in weights]
        self._sum_over_ranks(gradients)
        norm = scale_and_clip(gradients, scale, limit)
        self._failed = torch.maximum(self._failed, (~torch.isfinite(norm)).float())
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.found_inf = self._failed  # type: ignore[attr-defined]  # fused kernels leave the weights alone at 1
        optimizer.step()
        return norm

    def _sum_over_ranks(self, gradients: list[torch.Tensor]) -> None:
        if self.ranks.world_size == 1:
            return
        joined = self.ranks.sum_(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = joined.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
