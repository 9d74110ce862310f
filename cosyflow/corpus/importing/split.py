"""Which utterances become dev: by speaker where there are many, else by utterance, the same at every call."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

MANY_SPEAKERS = 20
DEFAULT_DEV_SHARE = 0.05


def dev_utterances(speakers: Mapping[str, str], share: float, seed: int) -> set[str]:
    """The utterances of dev, from speakers by utterance.

    About `share` (0 to 1) of them, at least one and not all where there are several and `share` is not 0. What is
    chosen depends on the seed and the names, not on their order.
    """
    wanted = min(len(speakers) - 1, max(1, round(share * len(speakers)))) if share > 0 else 0
    if wanted <= 0:
        return set()
    sizes = Counter(speakers.values())
    if len(sizes) < MANY_SPEAKERS:
        return set(_shuffled(speakers, seed)[:wanted])
    chosen: set[str] = set()
    count = 0
    small = [speaker for speaker in _shuffled(sizes, seed) if sizes[speaker] <= 2 * wanted]
    for speaker in small or [min(sizes, key=lambda speaker: sizes[speaker])]:
        if count < wanted:
            chosen.add(speaker)
            count += sizes[speaker]
    return {utt for utt, speaker in speakers.items() if speaker in chosen}


def _shuffled(names: Mapping[str, object], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
