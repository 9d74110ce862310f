"""Properties that every epoch plan has, whatever the corpus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.dataset.batching import TokenBudget, pack_in_order
from cosyflow.dataset.plan import plan_epoch
from cosyflow.errors import CosyFlowError

BUDGET = 100
lengths = st.lists(st.integers(1, BUDGET), min_size=1, max_size=120)
world_sizes = st.integers(1, 9)
by_speech = TokenBudget(BUDGET, lambda index: index.speech_len)


@settings(max_examples=150, deadline=None)
@given(lengths, world_sizes, st.integers(0, 5), st.booleans())
def test_every_utterance_comes_once_and_no_batch_is_over_budget(make_index, speech_len, world_size, epoch, shuffle):
    index = make_index(speech_len)
    plan = plan_epoch(index, 1, epoch, world_size, by_speech, shuffle)
    batches = [plan.batch(step, rank) for step in range(plan.num_steps) for rank in range(world_size)]
    assert sorted(np.concatenate(batches)) == list(range(len(index)))
    assert all(index.speech_len[batch].sum() <= BUDGET for batch in batches)


@settings(max_examples=100, deadline=None)
@given(lengths, world_sizes)
def test_a_rank_is_idle_only_when_there_are_too_few_utterances(make_index, speech_len, world_size):
    plan = plan_epoch(make_index(speech_len), 1, 0, world_size, by_speech)
    empty = int((np.diff(plan.offsets) == 0).sum())
    needed = plan.num_steps * world_size
    assert empty == max(0, needed - len(speech_len))
    assert empty < world_size


@settings(max_examples=50, deadline=None)
@given(lengths, world_sizes, st.integers(0, 5), st.data())
def test_a_resumed_epoch_is_the_rest_of_the_same_plan(make_index, speech_len, world_size, epoch, data):
    first = plan_epoch(make_index(speech_len), 1, epoch, world_size, by_speech)
    again = plan_epoch(make_index(speech_len), 1, epoch, world_size, by_speech)
    start = data.draw(st.integers(0, first.num_steps))
    rank = data.draw(st.integers(0, world_size - 1))
    whole = [batch.tolist() for batch in first.batches(rank)]
    assert [batch.tolist() for batch in again.batches(rank, start)] == whole[start:]


def test_epoch_and_seed_change_the_order(make_index):
    index = make_index([5] * 200)
    orders = {tuple(plan_epoch(index, seed, epoch, 2, by_speech).rows) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_without_shuffling_the_order_is_that_of_the_lists(make_index):
    plan = plan_epoch(make_index([30] * 10), 1, 4, 1, by_speech, shuffle=False)
    assert plan.rows.tolist() == list(range(10))


def test_a_reader_that_holds_two_windows_reads_few_shards_twice(make_index):
    rng = np.random.default_rng(0)
    index = make_index(rng.integers(1, 30, 8000).tolist(), shard_size=50)
    plan = plan_epoch(index, 1, 0, 1, by_speech, window_shards=4)
    recent: list[int] = []
    reads = 0
    for row in plan.rows:
        shard = int(index.shard[row])
        reads += shard not in recent
        recent = [shard, *(other for other in recent if other != shard)][:8]
    assert reads <= 1.1 * len(index.shards)


def test_steps_are_nearly_full(make_index):
    rng = np.random.default_rng(0)
    index = make_index(rng.integers(1, 25, 5000).tolist())
    plan = plan_epoch(index, 1, 0, 4, by_speech)
    assert index.speech_len.sum() / (plan.num_steps * 4 * BUDGET) > 0.97


def test_an_utterance_longer_than_the_budget_is_named(make_index):
    with pytest.raises(CosyFlowError, match="utterance utt1 takes 101 tokens and a batch only 100"):
        plan_epoch(make_index([5, 101, 7]), 1, 0, 1, by_speech)


def test_an_empty_index_is_an_error(make_index):
    with pytest.raises(CosyFlowError, match="no utterance"):
        plan_epoch(make_index([]), 1, 0, 1, by_speech)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 8))
def test_packs_keep_to_a_stretch_of_the_order(sizes, open_packs):
    """A pack is closed before `open_packs` later ones are, so what it holds was read at about the same time."""
    packs = pack_in_order(list(range(len(sizes))), sizes, 50, open_packs)
    assert sorted(item for pack in packs for item in pack) == list(range(len(sizes)))
    starts = [pack[0] for pack in packs]
    assert starts == sorted(starts)
    for place, pack in enumerate(packs[:-open_packs]):
        assert max(pack) < starts[place + open_packs]
