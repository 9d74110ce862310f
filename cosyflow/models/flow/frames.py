"""The valid positions of a padded batch, end to end: linear maps and attention need not see the padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cosyflow.models.layers.packing import Rows


@dataclass(frozen=True)
class Frames:
    """Where the F valid positions of B padded sequences lie."""

    rows: Rows
    position: torch.Tensor
    """int64 [F], position inside the sequence."""
    length: torch.Tensor
    """int64 [B], length of each sequence."""
    lengths: tuple[int, ...]
    """The same, on the host."""

    @classmethod
    def of(cls, length: torch.Tensor, lengths: Sequence[int]) -> Frames:
        """From the lengths of the sequences on the device, int64 [B], and on the host."""
        count, total = len(lengths), sum(lengths)
        number = torch.arange(count, device=length.device)
        sequence = torch.repeat_interleave(number, length, output_size=total)  # int64 [F]
        start = length.cumsum(0) - length
        position = torch.arange(total, device=length.device) - start[sequence]
        return cls(Rows.of(sequence, position, lengths), position, length, tuple(lengths))

    def halved(self) -> Frames:
        """Of every second position, from the first on."""
        return Frames.of((self.length + 1) // 2, [(length + 1) // 2 for length in self.lengths])

    def repeated(self, factor: int) -> Frames:
        """Of each position `factor` times."""
        return Frames.of(self.length * factor, [length * factor for length in self.lengths])

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, ...] -> [F, ...]"""
        return self.rows.pack(x)

    def unpack(self, flat: torch.Tensor) -> torch.Tensor:
        """[F, ...] -> [B, T, ...], zero at padding."""
        return self.rows.unpack(flat)
