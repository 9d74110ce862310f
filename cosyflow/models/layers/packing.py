"""From one flat line of tokens to rows of one sequence each, and back: only attention needs the rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rows:
    """Where each of T flat tokens lies in a table of `count` rows that are `width` long."""

    slot: torch.Tensor
    """int64 [T], row * width + column; count * width for a token that belongs to no sequence."""
    count: int
    width: int

    @classmethod
    def of(cls, sequence: torch.Tensor, position: torch.Tensor, count: int, width: int) -> Rows:
        """A row for each of the sequences 0..count-1, none longer than `width`; tokens of other sequences are padding.

        Args:
            sequence: int64 [T], the sequence of each token.
            position: int64 [T], its position there.
        """
        return cls(torch.where(sequence < count, sequence * width + position, count * width), count, width)

    def unpack(self, flat: torch.Tensor) -> torch.Tensor:
        """[T, ...] -> [count, width, ...], zeros where a sequence has ended."""
        rest = flat.shape[1:]
        table = flat.new_zeros((self.count * self.width + 1, *rest)).index_copy(0, self.slot, flat)
        return table[:-1].view(self.count, self.width, *rest)

    def pack(self, table: torch.Tensor) -> torch.Tensor:
        """[count, width, ...] -> [T, ...]; padding tokens receive the value of the last slot."""
        return table.flatten(0, 1)[self.slot.clamp(max=self.count * self.width - 1)]
