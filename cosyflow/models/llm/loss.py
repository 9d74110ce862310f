"""The loss of next-token prediction, on the positions that have a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cosyflow.models.llm.batch import IGNORE

CHUNK = 4096
"""Logits of so many positions exist at a time."""


@dataclass(frozen=True, eq=False)
class LMOutput:
    """Sums over the targets of a batch; divide by the number of targets of all ranks."""

    loss_sum: Tensor
    """float32 [], nats, label smoothing applied."""
    num_correct: Tensor
    """int64 [], targets that are the most likely id."""
    per_sequence_logprob: Tensor | None = None
    """float32 [N], log-probability of each sequence's targets, no label smoothing; when asked for."""


def next_token_loss(
    hidden: Tensor, head: nn.Linear, targets: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy of `head(hidden)`, float32, a chunk of positions at a time.

    With smoothing e the wanted distribution is 1-e at the target and e/(V-1) elsewhere, and the loss is the
    Kullback-Leibler divergence from it, so that 0 can be reached. With several chunks the backward pass recomputes
    their logits.

    Args:
        hidden: [M, H], where the targets are predicted.
        head: H -> V.
        targets: int64 [M], IGNORE where there is none.
        smoothing: e.

    Returns:
        loss float32 [M] and log-probability of the target float32 [M], both 0 at IGNORE; hits bool [M].
    """
    if len(targets) <= CHUNK:
        return _chunk_loss(hidden, head, targets, smoothing)
    parts = []
    for hidden_part, targets_part in zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True):
        parts.append(checkpoint(_chunk_loss, hidden_part, head, targets_part, smoothing, use_reentrant=False))
    loss, logprob, hit = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return loss, logprob, hit


def _chunk_loss(hidden: Tensor, head: nn.Linear, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    logits = head(hidden).float()
    logprobs = F.log_softmax(logits, dim=-1)
    negative = F.nll_loss(logprobs, targets, ignore_index=IGNORE, reduction="none")
    hit = logits.detach().argmax(dim=-1) == targets
    if smoothing == 0:
        return negative, -negative, hit
    others = smoothing / (logits.shape[-1] - 1)
    entropy = (1 - smoothing) * math.log(1 - smoothing) + smoothing * math.log(others)
    smoothed = (1 - smoothing - others) * negative - others * logprobs.sum(dim=-1) + entropy
    return smoothed.masked_fill(targets == IGNORE, 0), -negative, hit


def sum_by_sequence(values: Tensor, sequence: Tensor, count: int) -> Tensor:
    """Adds float32 [M] values of each of `count` sequences, whose numbers are int64 [M]: float32 [count]."""
    return values.new_zeros(count).index_add(0, sequence, values)
