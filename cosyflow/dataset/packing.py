"""Batches of whole utterances laid one after the other in a budget of tokens, with nothing padded but the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

OPEN_PACKS = 16


@dataclass(frozen=True)
class TokenBudget:
    """Packs utterances so that no batch has more than `tokens` tokens."""

    tokens: int
    length: Callable[[UtteranceIndex], np.ndarray]
    """Tokens that each utterance takes in a batch: int [utterances], from `text_len`, `speech_len` and the like."""

    def group(self, index: UtteranceIndex, order: np.ndarray) -> list[np.ndarray]:
        """Packs in the given order, each utterance into the fullest of the open packs that has room for it.

        Raises:
            CosyFlowError: an utterance alone is longer than the budget.
        """
        length = np.asarray(self.length(index))
        longest = int(length.argmax()) if len(length) else 0
        if len(length) and length[longest] > self.tokens:
            raise CosyFlowError(
                f"utterance {index.utts[longest]} takes {length[longest]} tokens and a batch only {self.tokens};"
                " raise the token budget or filter long utterances (filter.max_length, filter.token_max_length)"
            )
        return [np.array(pack, np.int64) for pack in pack_in_order(order.tolist(), length[order].tolist(), self.tokens)]


def pack_in_order(items: list[int], sizes: list[int], capacity: int, open_packs: int = OPEN_PACKS) -> list[list[int]]:
    """Best-fit packing with few packs open at a time, so that a pack's items stand close together in the order.

    When nothing fits, the oldest open pack is closed. Packs come out in the order in which they are closed.
    """
    packs: list[list[int]] = []
    opened: list[list[int]] = []
    rooms: list[int] = []
    for item, size in zip(items, sizes, strict=True):
        best = -1
        for place, room in enumerate(rooms):
            if room >= size and (best < 0 or room < rooms[best]):
                best = place
        if best < 0:
            if len(opened) == open_packs:
                packs.append(opened.pop(0))
                rooms.pop(0)
            opened.append([])
            rooms.append(capacity)
            best = len(opened) - 1
        opened[best].append(item)
        rooms[best] -= size
    return packs + opened
