"""Boolean masks: True where a position counts, or where a query may look."""

from __future__ import annotations

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
