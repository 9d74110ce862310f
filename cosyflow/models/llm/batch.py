"""Utterances packed into one flat sequence of tokens, ready for a language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch

IGNORE = -1
"""Target of a position that has no next token to learn."""

TEXT, SPEECH, SPECIAL, SPEAKER, PADDING = range(5)
"""The tables that a position's embedding comes from."""


@dataclass(frozen=True, eq=False)
class Example:
    """One utterance of token ids."""

    utterance: str
    text: np.ndarray
    """int64 [t]"""
    speech: np.ndarray
    """int64 [s]"""
    instruct: np.ndarray | None = None
    """int64 [i], ids that come before the text and are not learnt (CosyVoice 3)."""
    embedding: np.ndarray | None = None
    """float32 [192], speaker embedding (CosyVoice 1)."""
    rejected: np.ndarray | None = None
    """int64 [r], speech ids that DPO teaches the model to avoid."""


_Packed = TypeVar("_Packed", "PackedText", "PackedBatch")


def _map_tensors(packed: _Packed, function: Callable[[torch.Tensor], torch.Tensor]) -> _Packed:
    changes: dict[str, Any] = {}
    for entry in fields(packed):
        value = getattr(packed, entry.name)
        if isinstance(value, torch.Tensor):
            changes[entry.name] = function(value)
        elif isinstance(value, PackedText):
            changes[entry.name] = _map_tensors(value, function)
    return replace(packed, **changes)


@dataclass(frozen=True, eq=False)
class PackedText:
    """The text of a batch alone, U tokens end to end, for models with a text encoder (CosyVoice 1).

    With a budget U is padded with id 0 in sequences of their own.
    """

    ids: torch.Tensor
    """int64 [U]"""
    position: torch.Tensor
    """int64 [U], position inside the text."""
    sequence: torch.Tensor
    """int64 [U], number of the sequence."""
    cu_seqlens: torch.Tensor
    """int32 [C+1], where each text begins; the last entries repeat U."""
    max_seqlen: int
    """No text is longer; a power of two."""
    lengths: list[int]
    """Length of each text, on the host, without padding."""


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """N sequences end to end in T positions; a DPO batch holds the N/2 chosen ones first, then the rejected ones.

    With a budget T is the budget, and the numbers of sequences C and targets M are rounded up to a few fixed values, so
    that compiled code meets few shapes. Padding positions form sequences of their own after the real ones, with source
    PADDING and target IGNORE; surplus entries of `cu_seqlens` repeat T (empty sequences); surplus `target_positions`
    are 0 with `targets` IGNORE. Without a budget nothing is padded.
    """

    utterances: list[str]
    """Name of each utterance; N of them, N/2 in a DPO batch."""
    lengths: list[int]
    """Positions of each of the N sequences, on the host."""
    target_counts: list[int]
    """Targets of each of the N sequences, on the host."""
    source: torch.Tensor
    """int64 [T], TEXT, SPEECH, SPECIAL, SPEAKER or PADDING."""
    index: torch.Tensor
    """int64 [T], row in the table that `source` names; rows of `text` for TEXT when the model encodes its text."""
    position: torch.Tensor
    """int64 [T], position inside the sequence."""
    sequence: torch.Tensor
    """int64 [T], number of the sequence."""
    target: torch.Tensor
    """int64 [T], id of the next speech token or IGNORE."""
    target_positions: torch.Tensor
    """int64 [M], the positions that have a target."""
    targets: torch.Tensor
    """int64 [M], their targets."""
    target_sequence: torch.Tensor
    """int64 [M], number of the sequence that each belongs to."""
    cu_seqlens: torch.Tensor
    """int32 [C+1], where each sequence begins."""
    max_seqlen: int
    """No sequence is longer; a power of two."""
    embedding: torch.Tensor | None = None
    """float32 [C, D], speaker embedding of each sequence."""
    text: PackedText | None = None
    reference: torch.Tensor | None = None
    """float32 [N], log-probability of each sequence under the reference model of DPO, where it is known already."""

    @property
    def num_sequences(self) -> int:
        """N"""
        return len(self.lengths)

    @property
    def num_pairs(self) -> int:
        """Pairs of a chosen and a rejected sequence; 0 where no sequence is rejected."""
        return self.num_sequences - len(self.utterances)

    @property
    def num_targets(self) -> int:
        """Targets that are not IGNORE, known without asking the device."""
        return sum(self.target_counts)

    @property
    def num_chosen_targets(self) -> int:
        """Targets of the sequences that are not rejected."""
        return sum(self.target_counts[: len(self.utterances)])

    @property
    def num_tokens(self) -> int:
        """Positions that are not padding."""
        return sum(self.lengths)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedBatch:
        """The batch with its tensors on `device`."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedBatch:
        """The batch in page-locked memory, from where copies to the GPU overlap with work."""
        return _map_tensors(self, torch.Tensor.pin_memory)
