"""Fundamental frequency from mel frames."""

from __future__ import annotations

import torch
from torch import nn

from cosyflow.models.vocoder.convolution import PaddedConv1d, same_length_conv, weight_norm

CAUSAL_LOOK_AHEAD = 3  # mel frames
LAYERS = 5
INITIAL_F0 = 100.0  # Hz; from 0 Hz an untrained predictor needs hundreds of steps to reach the range of a voice
INITIAL_GAIN = 30.0  # of the last layer: weights that move by the learning rate take long from units to tens of Hz


class F0Predictor(nn.Module):
    """Five convolutions and a linear layer; the causal form sees `look_ahead` mel frames of the future."""

    def __init__(self, mel_bins: int, channels: int, *, causal: bool) -> None:
        super().__init__()
        self.look_ahead = CAUSAL_LOOK_AHEAD if causal else 0
        first: PaddedConv1d
        if causal:
            first = weight_norm(
                PaddedConv1d(mel_bins, channels, CAUSAL_LOOK_AHEAD + 1, left=0, right=CAUSAL_LOOK_AHEAD)
            )
        else:
            first = same_length_conv(mel_bins, channels, 3, causal=False)
        layers: list[nn.Module] = [first, nn.ELU()]
        for _ in range(LAYERS - 1):
            layers += [same_length_conv(channels, channels, 3, causal=causal), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)
        nn.init.constant_(self.classifier.bias, INITIAL_F0)
        with torch.no_grad():
            self.classifier.weight.mul_(INITIAL_GAIN)

    def forward(self, mel: torch.Tensor, final: bool = True) -> torch.Tensor:
        """mel [B, bins, F] -> f0 [B, F] in Hz; with `final=False` the last `look_ahead` frames are only context.

        Autocast does not apply: bfloat16 would round f0 to 1 Hz.
        """
        first, *others = self.condnet
        with torch.autocast(mel.device.type, enabled=False):
            hidden = first(mel, final)
            for layer in others:
                hidden = layer(hidden)
            f0: torch.Tensor = self.classifier(hidden.transpose(1, 2)).squeeze(-1).abs()
        return f0
