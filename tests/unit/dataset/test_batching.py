"""Padded batches hold every utterance once and stay within their frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.dataset.batching import FixedCount, FrameBudget
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=1200), frames=st.integers(50, 300))
def test_padding_stays_within_the_budget(
    make_index: Callable[..., UtteranceIndex], lengths: list[int], frames: int
) -> None:
    index = make_index(lengths)
    order = np.random.default_rng(0).permutation(len(lengths))
    budget = FrameBudget(frames, lambda index: index.speech_len)
    groups = budget.group(index, order)
    assert sorted(np.concatenate(groups)) == list(range(len(lengths)))
    for group in groups:
        assert len(group) * index.speech_len[group].max() <= frames
    again = budget.group(index, order)
    assert all(np.array_equal(first, second) for first, second in zip(groups, again, strict=True))


def test_an_utterance_longer_than_a_batch_is_named(make_index: Callable[..., UtteranceIndex]) -> None:
    with pytest.raises(CosyFlowError, match="utterance utt1 has 60 mel frames and a batch only 50"):
        FrameBudget(50, lambda index: index.speech_len).group(make_index([5, 60]), np.arange(2))


def test_fixed_count(make_index: Callable[..., UtteranceIndex]) -> None:
    groups = FixedCount(3).group(make_index([1] * 7), np.arange(7)[::-1])
    assert [group.tolist() for group in groups] == [[6, 5, 4], [3, 2, 1], [0]]
