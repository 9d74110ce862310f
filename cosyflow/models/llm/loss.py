"""The losses of the language models: next-token prediction, on the positions that have a target, and direct preference
optimisation, by which chosen speech becomes likelier than rejected speech, measured from a reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cosyflow.config.llm import DPOConfig
from cosyflow.models.llm.batch import IGNORE, PackedBatch

CHUNK = 4096
"""Number of positions whose logits exist at a time."""


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


@dataclass(frozen=True, eq=False)
class DPOOutput:
    """The loss of P pairs and the measures of whether it works."""

    loss_sum: Tensor
    """float32 [], to be divided by the chosen targets of all ranks: the preference loss, once for each chosen target of
    the batch, and the weighted next-token loss."""
    next_token: Tensor
    """float32 [], sum of the next-token loss over the chosen targets, without its weight."""
    preference: Tensor
    """float32 [P], preference loss of each pair."""
    chosen_reward: Tensor
    """float32 [P], detached: beta times how much likelier than under the reference the chosen sequence is."""
    rejected_reward: Tensor
    """float32 [P], the same of the rejected sequence."""

    @property
    def num_correct(self) -> Tensor:
        """int64 [], pairs whose chosen sequence has the larger reward."""
        return (self.chosen_reward > self.rejected_reward).sum()


def preference_loss(policy: Tensor, reference: Tensor, config: DPOConfig) -> tuple[Tensor, Tensor]:
    """The loss of each pair from log-probabilities of its sequences.

    The sigmoid loss is equation 7 of https://arxiv.org/abs/2305.18290, with label smoothing equation 3 of
    https://ericmitchell.ai/cdpo.pdf; the identity loss is equation 17 of https://arxiv.org/abs/2310.12036.

    Args:
        policy: float32 [2, P], the chosen sequences, then the rejected ones.
        reference: float32 [2, P], under the reference model.
        config: settings.

    Returns:
        loss float32 [P] and detached rewards float32 [2, P].
    """
    gain = policy - reference
    margin = gain[0] - gain[1]
    if config.ipo:
        loss = (margin - 1 / (2 * config.beta)).square()
    else:
        kept, swapped = F.logsigmoid(config.beta * margin), F.logsigmoid(-config.beta * margin)
        loss = -(1 - config.label_smoothing) * kept - config.label_smoothing * swapped
    return loss, config.beta * gain.detach()


def dpo_loss(policy: Tensor, reference: Tensor, batch: PackedBatch, config: DPOConfig) -> DPOOutput:
    """The loss of a batch with rejected sequences.

    Args:
        policy: float32 [N], `per_sequence_logprob` of the trained model.
        reference: float32 [N], that of the reference for the same batch. Stored values serve as long as the layouts of
            the sequences stay as they were.
        batch: its N/2 chosen and N/2 rejected sequences.
        config: settings. The next-token loss has no label smoothing.
    """
    if not batch.num_pairs:
        raise ValueError("DPO needs a batch with rejected sequences")
    next_token = -policy.unflatten(0, (2, -1))[0].sum()
    if config.logprob == "mean":
        counts = sum_by_sequence((batch.targets != IGNORE).float(), batch.target_sequence, batch.num_sequences)
        policy, reference = policy / counts, reference / counts
    # [N] -> [2, P]
    preference, rewards = preference_loss(policy.unflatten(0, (2, -1)), reference.unflatten(0, (2, -1)), config)
    loss_sum = preference.mean() * batch.num_chosen_targets + config.sft_weight * next_token
    return DPOOutput(loss_sum, next_token, preference, rewards[0], rewards[1])
