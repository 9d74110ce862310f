"""A small vocoder on made-up windows; also a program: one process of a few updates of it."""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from cosyflow.checkpoint.files import write_file
from cosyflow.config.training import GanTrainConf
from cosyflow.config.vocoder import DiscriminatorConfig, HiFiGanConfig, HiFTConfig, SpectrogramResolution
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.models.vocoder.hift import GeneratedSpeech
from cosyflow.models.vocoder.source import SourceNoise
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.loop import Updater
from cosyflow.training.member import member_of_a_job
from cosyflow.training.ranks import process_group
from cosyflow.training.vocoder import VocoderObjective
from cosyflow.training.vocoder_data import WindowBatch

FRAMES, HOP = 8, 480
CONF = GanTrainConf(window_frames=FRAMES)


def objective(warmup: int = 0) -> VocoderObjective:
    torch.manual_seed(0)
    generator = HiFTConfig(
        base_channels=16,
        f0_channels=8,
        resblock_kernel_sizes=(3,),
        resblock_dilation_sizes=((1,),),
        source_resblock_dilation_sizes=((1,), (1,), (1,)),
    )
    discriminator = DiscriminatorConfig(
        periods=(2,),
        period_channels=(4, 4),
        resolutions=(SpectrogramResolution(256, 60, 240),),
        spectrogram_channels=2,
    )
    return VocoderObjective(HiFiGan(HiFiGanConfig(generator, discriminator)), warmup=warmup)


def batch(*utterances: str, seed: int = 0) -> WindowBatch:
    rng = torch.Generator().manual_seed(seed)
    count = len(utterances)
    return WindowBatch(
        utterances=list(utterances),
        waveform=torch.rand(count, FRAMES * HOP, generator=rng) - 0.5,
        mel=torch.randn(count, 80, FRAMES, generator=rng),
        f0=torch.full((count, FRAMES), 150.0),
    )


class WithoutChance(VocoderObjective):
    """Its noise depends on the utterance alone, and not on the rank that trains on it."""

    def generate(self, windows: WindowBatch, noise: SourceNoise | None = None) -> GeneratedSpeech:
        return super().generate(windows, self._fixed_noise(windows))


UPDATES = (
    ([batch("a"), batch("b", "c", seed=1)], [batch("d", seed=2), None]),
    ([batch("e", seed=3), None], [batch("f", seed=4), None]),
)
"""The batches of two ranks, of which the second has nothing to do at times."""


def run_updates(trained: VocoderObjective, updater: Updater, batches: list[list[WindowBatch | None]]) -> list[float]:
    """The losses told of the updates."""
    reports = [updater.update(group, number) for number, group in enumerate(batches)]
    return [report.means["loss"] for of_update in reports for report in of_update]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    args = parser.parse_args()
    with member_of_a_job(), process_group("gloo", 60) as ranks:
        trained = WithoutChance(objective().model)
        engine = TorchDDP(ranks)
        updater = Updater(trained, replace(CONF, accum_grad=2), engine)
        losses = run_updates(trained, updater, [list(of_update[ranks.rank]) for of_update in UPDATES])
        weights = trained.model.state_dict()
        equal = ranks.gather({name: value.tolist() for name, value in weights.items()})
        if ranks.is_first:
            same = all(each == equal[0] for each in equal)
            write_file({"weights": dict(weights), "losses": losses, "same": same}, args.output)


if __name__ == "__main__":
    main()
