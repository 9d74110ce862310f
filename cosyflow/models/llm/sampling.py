"""Drawing the next token: nucleus and top-k sampling (https://arxiv.org/abs/1904.09751) that avoids repetition
(VALL-E 2, https://arxiv.org/abs/2406.05370).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyflow.config.llm import SamplingConfig

Draw = Callable[[Tensor], int]
"""Chooses an index from float [n] weights, which need not add up to one."""


def multinomial(generator: torch.Generator | None = None) -> Draw:
    """Draws in proportion to the weights, from torch's global generator or from one's own."""

    def draw(weights: Tensor) -> int:
        return int(weights.multinomial(1, replacement=True, generator=generator))

    return draw


def greedy(weights: Tensor) -> int:
    """The largest weight: what sampling becomes without chance."""
    return int(weights.argmax())


@dataclass(frozen=True)
class Sampler:
    """Draws from the nucleus; a token that was drawn too often lately is replaced by any other."""

    config: SamplingConfig
    draw: Draw = greedy

    def __call__(self, scores: Tensor, history: Sequence[int]) -> int:
        """Draws one id.

        Args:
            scores: float [V], log-probabilities up to a constant; -inf for ids that must not come.
            history: ids drawn so far.
        """
        token = self._from_nucleus(scores.softmax(dim=0))
        recent = history[max(0, len(history) - self.config.win_size) :]
        if recent and recent.count(token) >= self.config.win_size * self.config.tau_r:
            others = scores.clone()
            others[token] = -torch.inf
            token = self.draw(others.softmax(dim=0))
        return token

    def _from_nucleus(self, probabilities: Tensor) -> int:
        ordered, ids = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(dim=0) - ordered
        size = int((before < self.config.top_p)[: self.config.top_k].sum())
        return int(ids[self.draw(ordered[:size])])
