"""Settings of the mel spectrogram that the flow makes and the vocoder reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MelConf:
    """Sizes in samples, frequencies in Hz. The sampling rate is the recipe's."""

    n_fft: int = 1920
    hop_size: int = 480
    """Samples from one frame to the next."""
    win_size: int = 1920
    num_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = 8000.0
    """None: half of the sampling rate."""

    def __post_init__(self) -> None:
        if not 0 < self.hop_size <= self.win_size <= self.n_fft:
            raise ValueError(
                f"hop_size: {self.hop_size}, win_size {self.win_size} and n_fft {self.n_fft} are not in ascending order"
            )
        if self.num_mels < 1:
            raise ValueError(f"num_mels: {self.num_mels} is less than 1")
        if self.fmin < 0 or (self.fmax is not None and self.fmax <= self.fmin):
            raise ValueError(f"fmax: {self.fmax} is not above fmin {self.fmin}")
