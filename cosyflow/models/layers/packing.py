"""Positions of padded batches and of sequences that lie end to end: masks, and the way from one to the other.

Linear maps see the valid positions only, end to end; attention and convolutions need a row for each sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


def valid_mask(lengths: torch.Tensor, width: int) -> torch.Tensor:
    """Marks the positions before the end of each sequence: lengths [B] -> bool [B, width]."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def chunk_mask(width: int, chunk_size: int, device: torch.device) -> torch.Tensor:
    """Lets each position see its own chunk and all chunks before it: bool [width, width] (query, key).

    With `chunk_size` 1 this is the causal mask.
    """
    position = torch.arange(width, device=device)
    first_after_chunk = (position // chunk_size + 1) * chunk_size
    return position < first_after_chunk[:, None]


def attention_mask(valid: torch.Tensor, chunk_size: int) -> torch.Tensor:
    """Which keys a query sees: valid [B, T] -> bool [B, 1, T or 1, T] (batch, head, query, key).

    `chunk_size` 0 means the whole sequence. Every query sees at least key 0, so that no softmax is over nothing.
    """
    keys = valid[:, None, None, :]
    if chunk_size == 0:
        return keys
    return keys & chunk_mask(valid.size(1), chunk_size, valid.device)


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
