"""A sequence that a causal encoder reads piece by piece."""

from __future__ import annotations

import torch

from cosyflow.models.layers.encoder import Encoder
from cosyflow.models.layers.relative_attention import distance_table

_FIRST_CAPACITY = 256


class GrowingSequence:
    """Keeps keys and values of what was read, and the projected distances, which would cost more than all the rest.

    Room for distances doubles as the sequence grows, so that no length is too long.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._caches: list[torch.Tensor] = []
        self._distance_keys: list[torch.Tensor] = []
        self._capacity = 0
        self._length = 0

    def append(self, x: torch.Tensor) -> torch.Tensor:
        """The next Q positions, [1, Q, input_size] -> their encoding [1, Q, D]."""
        x = self._encoder.embed(x)
        if not self._caches:
            self._caches = [
                x.new_zeros(1, layer.self_attn.heads, 0, 2 * layer.self_attn.head_size)
                for layer in self._encoder.layers()
            ]
        before, self._length = self._length, self._length + x.size(1)
        if self._length > self._capacity:
            self._make_room(x)
        mask = torch.ones(x.size(1), self._length, dtype=torch.bool, device=x.device).tril(before)
        for number, layer in enumerate(self._encoder.layers()):
            distance_keys = self._distance_keys[number][:, self._capacity - self._length :]
            x, self._caches[number] = layer.forward_cached(x, distance_keys, mask, self._caches[number])
        encoded: torch.Tensor = self._encoder.after_norm(x)
        return encoded

    def _make_room(self, like: torch.Tensor) -> None:
        self._capacity = max(_FIRST_CAPACITY, 2 * self._length)
        table = distance_table(self._capacity - 1, 0, like.size(2), like)
        self._distance_keys = [layer.self_attn.project_distances(table) for layer in self._encoder.layers()]
