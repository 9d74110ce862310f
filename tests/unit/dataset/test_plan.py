"""Properties that every epoch plan has, whatever the corpus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.dataset.batching import TokenBudget, pack_in_order
from cosyflow.dataset.plan import batches_each, plan_epoch
from cosyflow.errors import CosyFlowError

BUDGET = 100
lengths = st.lists(st.integers(1, BUDGET), min_size=1, max_size=120)
world_sizes = st.integers(1, 9)
by_speech = TokenBudget(BUDGET, lambda index: index.speech_len)


per_updates = st.integers(1, 12)


def shares(plan, world_size, per_update, start=0):
    """The batches of every rank."""
    return [list(plan.share(rank, world_size, per_update, start)) for rank in range(world_size)]


def updates(plan, world_size, per_update):
    """The groups of each update, as sets of rows, put together again from what the ranks have."""
    ranks = [iter(share) for share in shares(plan, world_size, per_update)]
    for first in range(0, plan.num_groups, per_update):
        each = batches_each(min(per_update, plan.num_groups - first), world_size)
        batches = [next(rank) for rank in ranks for _ in range(each)]
        yield sorted(tuple(batch) for batch in batches if len(batch))
    assert all(next(rank, None) is None for rank in ranks)


@settings(max_examples=150, deadline=None)
@given(lengths, world_sizes, per_updates, st.integers(0, 5), st.booleans())
def test_every_utterance_comes_once_and_no_batch_is_over_budget(
    make_index, speech_len, world_size, per_update, epoch, shuffle
):
    index = make_index(speech_len)
    plan = plan_epoch(index, 1, epoch, by_speech, shuffle)
    batches = [batch for share in shares(plan, world_size, per_update) for batch in share]
    assert sorted(np.concatenate(batches)) == list(range(len(index)))
    assert all(index.speech_len[batch].sum() <= BUDGET for batch in batches)


@settings(max_examples=100, deadline=None)
@given(lengths, world_sizes, per_updates)
def test_the_number_of_ranks_changes_no_update(make_index, speech_len, world_size, per_update):
    plan = plan_epoch(make_index(speech_len), 1, 0, by_speech)
    assert list(updates(plan, world_size, per_update)) == list(updates(plan, 1, per_update))


@settings(max_examples=100, deadline=None)
@given(lengths, world_sizes, per_updates)
def test_ranks_have_equally_many_batches_and_wait_only_for_less_than_a_round(
    make_index, speech_len, world_size, per_update
):
    plan = plan_epoch(make_index(speech_len), 1, 0, by_speech)
    counts = {len(share) for share in shares(plan, world_size, per_update)}
    assert counts == {len(plan.share(0, world_size, per_update))}
    updates = -(-plan.num_groups // per_update)
    assert counts.pop() * world_size - plan.num_groups < updates * world_size


@settings(max_examples=50, deadline=None)
@given(lengths, world_sizes, world_sizes, per_updates, st.data())
def test_a_resumed_epoch_is_the_rest_of_the_same_plan_for_any_number_of_ranks(
    make_index, speech_len, before, after, per_update, data
):
    plan = plan_epoch(make_index(speech_len), 1, 2, by_speech)
    start = per_update * data.draw(st.integers(0, plan.num_groups // per_update))
    done = plan.rows[: plan.offsets[min(start, plan.num_groups)]].tolist()
    rest = [row for share in shares(plan, after, per_update, start) for batch in share for row in batch.tolist()]
    assert sorted(done + rest) == sorted(plan.rows)
    whole, resumed = shares(plan, before, per_update), shares(plan, before, per_update, start)
    for rank in range(before):
        assert [batch.tolist() for batch in resumed[rank]] == [
            batch.tolist() for batch in whole[rank][len(whole[rank]) - len(resumed[rank]) :]
        ]


def test_epoch_and_seed_change_the_order(make_index):
    index = make_index([5] * 200)
    orders = {tuple(plan_epoch(index, seed, epoch, by_speech).rows) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_without_shuffling_the_order_is_that_of_the_lists(make_index):
    plan = plan_epoch(make_index([30] * 10), 1, 4, by_speech, shuffle=False)
    assert plan.rows.tolist() == list(range(10))


def test_a_reader_that_holds_two_windows_reads_few_shards_twice(make_index):
    rng = np.random.default_rng(0)
    index = make_index(rng.integers(1, 30, 8000).tolist(), shard_size=50)
    plan = plan_epoch(index, 1, 0, by_speech, window_shards=4)
    recent: list[int] = []
    reads = 0
    for row in plan.rows:
        shard = int(index.shard[row])
        reads += shard not in recent
        recent = [shard, *(other for other in recent if other != shard)][:8]
    assert reads <= 1.1 * len(index.shards)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 100))
def test_ranks_are_at_least_98_percent_full_where_there_are_groups_enough(make_index, world_size, rounds, seed):
    """Of what all ranks could compute in all updates of an epoch, waiting and the room that packs leave counted."""
    index = make_index(np.random.default_rng(seed).integers(1, 25, 30_000).tolist())
    plan = plan_epoch(index, 1, 0, by_speech)
    slots = world_size * len(plan.share(0, world_size, world_size * rounds))
    assert index.speech_len.sum() / (slots * BUDGET) > 0.98


def test_an_utterance_longer_than_the_budget_is_named(make_index):
    with pytest.raises(CosyFlowError, match="utterance utt1 takes 101 tokens and a batch only 100"):
        plan_epoch(make_index([5, 101, 7]), 1, 0, by_speech)


def test_an_empty_index_is_an_error(make_index):
    with pytest.raises(CosyFlowError, match="no utterance"):
        plan_epoch(make_index([]), 1, 0, by_speech)


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
