"""How many speech tokens a second a corpus has, where no recipe says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cosyflow.dataset.alignment import why_misaligned
from cosyflow.errors import CosyFlowError, PlaceError

RATES = (25, 50)
"""Of the speech tokenizers of every version."""
LOOKED_AT = 32
_FITTING_SHARE = 0.75
"""This share must have a rate for it to be that of the corpus."""
_FEWEST_TOKENS = 10
"""Of fewer the rate is not seen: their audio may be some tokens longer."""


def rate_of(num_tokens: Sequence[int], seconds: Callable[[int], float]) -> int | None:
    """The rate that nearly all utterances have; None when there is none, or no utterance is long enough.

    Args:
        num_tokens: speech tokens by utterance.
        seconds: looks up the length of an utterance's audio; is asked for a few of them, evenly chosen.
    """
    places = [place for place, count in enumerate(num_tokens) if count >= _FEWEST_TOKENS]
    chosen = places[:: -(-len(places) // LOOKED_AT) or 1]
    lengths: dict[int, float] = {}
    for place in chosen:
        try:
            lengths[place] = seconds(place)
        except PlaceError:
            raise
        except CosyFlowError:  # its turn comes when its shard is made
            continue
    for rate in RATES:
        fitting = [why_misaligned(num_tokens[place], length, rate) is None for place, length in lengths.items()]
        if fitting and sum(fitting) >= _FITTING_SHARE * len(fitting):
            return rate
    return None
