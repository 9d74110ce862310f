"""How many speech tokens a second a corpus has is seen in most of its utterances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.dataset.token_rate import LOOKED_AT, RATES, rate_of
from cosyflow.errors import AudioError, PlaceError

seconds = st.floats(1.0, 30.0, width=32)


@given(st.sampled_from(RATES), st.lists(seconds, min_size=1, max_size=200), st.data())
def test_the_rate_is_that_of_most_utterances(rate: int, lengths: list[float], data: st.DataObject) -> None:
    off = st.integers(-2, 0)  # what is left of the last token is cut
    tokens = [int(rate * length) + data.draw(off) for length in lengths]
    for place in data.draw(
        st.sets(st.sampled_from(range(len(lengths))), max_size=min(len(lengths), LOOKED_AT // 2) // 4)
    ):
        tokens[place] //= 2
    assert rate_of(tokens, lambda place: lengths[place]) == rate


def test_of_a_large_corpus_a_few_utterances_are_looked_at() -> None:
    looked_at: list[int] = []

    def look(place: int) -> float:
        looked_at.append(place)
        return 4.0

    assert rate_of([100] * 10_000, look) == 25
    assert len(looked_at) <= LOOKED_AT
    assert max(looked_at) > 9_000


def test_what_is_no_rate_of_a_tokenizer_is_none() -> None:
    assert rate_of([70] * 9, lambda place: 1.0) is None
    assert rate_of([25, 25, 12, 12], lambda place: 1.0) is None, "too few have it"
    assert rate_of([3] * 9, lambda place: 0.1) is None, "too short to tell"
    assert rate_of([], lambda place: 1.0) is None


def test_audio_that_cannot_be_read_does_not_count_but_an_outage_ends_the_work() -> None:
    def broken(place: int) -> float:
        if place == 0:
            raise AudioError("x.wav: truncated")
        return 1.0

    assert rate_of([25, 25], broken) == 25

    def gone(place: int) -> float:
        raise PlaceError("the store does not answer")

    with pytest.raises(PlaceError):
        rate_of([25], gone)
