"""Intervals hold what they promise, and pairs show what separate samples hide."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.evaluation.statistics import difference, interval

PAIRS = st.lists(st.tuples(st.floats(-10, 10), st.floats(0.5, 20)), min_size=1, max_size=30)


@settings(max_examples=30)
@given(PAIRS)
def test_the_figure_lies_within_its_interval(pairs: list[tuple[float, float]]) -> None:
    found = interval(pairs)
    assert found.low <= found.value <= found.high
    assert found.n == len(pairs)
    assert interval(pairs) == found


def test_a_rate_is_the_sum_of_errors_over_the_sum_of_words() -> None:
    assert interval([(1, 2), (0, 8)]).value == 0.1


def test_about_95_of_100_intervals_hold_the_true_mean() -> None:
    random = np.random.default_rng(0)
    found = [interval([(value, 1.0) for value in random.normal(3, 1, 60)]) for _ in range(100)]
    assert 88 <= sum(each.low <= 3 <= each.high for each in found) <= 99


def test_a_small_difference_shows_in_pairs() -> None:
    """Utterances differ by far more than the two systems do."""
    random = np.random.default_rng(1)
    hard = random.normal(0, 5, 40)
    first = {str(number): (value + 0.2 + random.normal(0, 0.1), 1.0) for number, value in enumerate(hard)}
    second = {str(number): (value, 1.0) for number, value in enumerate(hard)}
    paired = difference(first, second)
    assert 0.1 < paired.low < paired.high < 0.3
    assert interval(list(first.values())).low < interval(list(second.values())).value


def test_equal_systems_do_not_differ() -> None:
    same = {"a": (1.0, 2.0), "b": (0.0, 3.0)}
    found = difference(same, same)
    assert (found.value, found.low, found.high) == (0, 0, 0)
