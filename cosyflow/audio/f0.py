"""The fundamental frequency of speech by WORLD (Morise), one value in Hz for each mel frame, 0 where there is no voice.

`harvest_f0` is what the released vocoders were trained with; `dio_f0` takes a twentieth of its time.
"""

from __future__ import annotations

import numpy as np
import pyworld
import torch
from torch.nn import functional as F

FEWEST_VOICED = 5
"""With fewer voiced frames by Harvest, DIO is tried, as the official code does."""


def harvest_f0(waveform: torch.Tensor, sample_rate: int, hop_size: int) -> np.ndarray:
    """Harvest (Morise 2017), then DIO where it finds next to nothing, refined by StoneMask: 71 to 800 Hz.

    Args:
        waveform: [samples].
        sample_rate: Hz.
        hop_size: samples of a frame.

    Returns:
        float64 [samples // hop_size] in Hz. WORLD's values, one more than there are frames, are interpolated linearly.
    """
    signal, period = waveform.double().numpy(), 1000 * hop_size / sample_rate  # milliseconds
    frames = len(signal) // hop_size
    if frames == 0:
        return np.zeros(0)
    f0, times = pyworld.harvest(signal, sample_rate, frame_period=period)
    if np.count_nonzero(f0) < FEWEST_VOICED:
        f0, times = pyworld.dio(signal, sample_rate, frame_period=period)
    f0 = pyworld.stonemask(signal, f0, times, sample_rate)
    return F.interpolate(torch.from_numpy(f0)[None, None], frames, mode="linear")[0, 0].numpy()


def dio_f0(waveform: torch.Tensor, sample_rate: int, hop_size: int) -> np.ndarray:
    """DIO (Morise 2009), refined by StoneMask: 71 to 800 Hz.

    DIO finds less voice than Harvest, and is right more often about what it finds: see docs/benchmarks.md.

    Args:
        waveform: [samples].
        sample_rate: Hz.
        hop_size: samples of a frame.

    Returns:
        float64 [samples // hop_size] in Hz, in the middles of the frames: where voice begins and ends, no value is
        interpolated with 0.
    """
    signal, half = waveform.double().numpy(), 500 * hop_size / sample_rate  # milliseconds
    frames = len(signal) // hop_size
    if frames == 0:
        return np.zeros(0)
    f0, times = pyworld.dio(signal, sample_rate, frame_period=half)
    middles: np.ndarray = pyworld.stonemask(signal, f0, times, sample_rate)[1::2]
    return middles[:frames]
