"""Rounding is excused, an error is not."""

from __future__ import annotations

import math

import pytest
import torch

from tests.golden.rounding import (
    Nudge,
    Tolerance,
    assert_close_but_for_rounding,
    assert_log_magnitudes_close,
    by_one_unit_in_the_last_place,
    in_double,
)


def exactly(_name: str) -> Tolerance:
    return Tolerance(0.0)


def test_what_a_cancelled_difference_lost_is_excused() -> None:
    large, exact = 1_234_567.1, {"difference": torch.tensor(0.1)}  # the last place of float32 is an eighth here

    def difference(nudge: Nudge) -> dict[str, torch.Tensor]:
        return {"difference": nudge(torch.tensor(large)) - 1_234_567.0}

    def judge(expected: float) -> None:
        assert_close_but_for_rounding(difference, {"difference": torch.tensor(expected)}, exactly, lambda: exact)

    judge(0.3)
    with pytest.raises(AssertionError, match=r"difference is missed by 0\.9 .* rounding explains 0\.45"):
        judge(1.0)


def test_a_wrong_gradient_is_not_excused() -> None:
    weight = torch.linspace(0.5, 1.5, 1000)

    def judge(expected: torch.Tensor) -> None:
        exact = {"grad": 2 * weight.double()}
        assert_close_but_for_rounding(
            lambda nudge: {"grad": 2 * nudge(weight)}, {"grad": expected}, exactly, lambda: exact
        )

    judge((2 * weight).norm())
    judge(2 * weight)
    for wrong in ((2.00001 * weight).norm(), 2.00001 * weight):
        with pytest.raises(AssertionError, match="grad"):
            judge(wrong)


def test_not_a_number_is_wrong() -> None:
    nan = {"loss": torch.tensor(math.nan)}
    with pytest.raises(AssertionError, match="loss"):
        assert_close_but_for_rounding(lambda nudge: nan, {"loss": torch.tensor(1.0)}, exactly, lambda: nan)


def test_a_result_more_or_less_is_wrong() -> None:
    with pytest.raises(AssertionError):
        assert_close_but_for_rounding(lambda nudge: {}, {"loss": torch.tensor(1.0)}, exactly, dict)


def test_in_double_everything_is_float64_and_afterwards_nothing_is() -> None:
    assert in_double(lambda: {"weight": torch.nn.Linear(1, 1).weight})["weight"].dtype == torch.float64
    assert torch.nn.Linear(1, 1).weight.dtype == torch.float32


def test_a_nudge_moves_every_number_and_leaves_integers() -> None:
    nudge = by_one_unit_in_the_last_place(1)
    numbers = torch.tensor([0.0, 1.0, -3e10, 1e-20])

    assert ((nudge(numbers) - numbers).abs() <= 2 * torch.finfo(torch.float32).eps * numbers.abs() + 1e-44).all()
    assert (nudge(numbers) != numbers).all()
    assert torch.equal(nudge(torch.arange(3)), torch.arange(3))


def test_a_band_may_miss_a_rounding_of_the_loudest() -> None:
    log_magnitude = torch.tensor([[0.0, -10.0], [0.0, 0.0]])
    off = torch.tensor([[0.0, 2e-3], [0.0, 0.0]])

    assert_log_magnitudes_close(log_magnitude + off, log_magnitude, log_magnitude, roundings=1)
    with pytest.raises(AssertionError, match=r"at \[1, 1\]"):
        assert_log_magnitudes_close(log_magnitude + off.flip(0), log_magnitude, log_magnitude, roundings=1)
