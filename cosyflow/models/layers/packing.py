"""From one flat line of tokens to rows of one sequence each, and back: only attention needs the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rows:
    """Where each of T flat tokens lies in a table of `count` rows that are `width` long."""

    slot: torch.Tensor
    """int64 [T], row * width + column; count * width for a token that belongs to no sequence."""
    count: int
    width: int
    lengths: tuple[int, ...] | None
    """Length of each sequence, on the host; None in compiled code, which must not depend on them."""

    @classmethod
    def of(cls, sequence: torch.Tensor, position: torch.Tensor, lengths: Sequence[int]) -> Rows:
        """A row for each of the sequences 0..len(lengths)-1, as wide as the longest; other sequences are padding.

        Args:
            sequence: int64 [T], the sequence of each token.
            position: int64 [T], its position there.
            lengths: length of each sequence, on the host.
        """
        count, width = len(lengths), max(lengths)
        slot = torch.where(sequence < count, sequence * width + position, count * width)
        return cls(slot, count, width, tuple(lengths))

    @classmethod
    def of_all(cls, sequence: torch.Tensor, position: torch.Tensor, count: int, width: int) -> Rows:
        """`count` rows of a given width for all sequences, padding too: the numbers are the same for many batches."""
        return cls(sequence * width + position, count, width, None)

    def unpack(self, flat: torch.Tensor) -> torch.Tensor:
        """[T, ...] -> [count, width, ...], zeros where a sequence has ended."""
        rest = flat.shape[1:]
        table = flat.new_zeros((self.count * self.width + 1, *rest)).index_copy(0, self.slot, flat)
        return table[:-1].view(self.count, self.width, *rest)

    def pack(self, table: torch.Tensor) -> torch.Tensor:
        """[count, width, ...] -> [T, ...]; padding tokens receive the value of the last slot."""
        return table.flatten(0, 1)[self.slot.clamp(max=self.count * self.width - 1)]
