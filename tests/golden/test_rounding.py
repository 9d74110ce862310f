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
)


def exactly(_name: str) -> Tolerance:
    return Tolerance(0.0)


def test_what_a_cancelled_difference_lost_is_excused() -> None:
    large = torch.tensor(1_234_567.1)  # its last place is an eighth

    def difference(nudge: Nudge) -> dict[str, torch.Tensor]:
        return {"difference": nudge(large) - 1_234_567.0}

    assert_close_but_for_rounding(difference, {"difference": torch.tensor(0.1)}, exactly)
    with pytest.raises(AssertionError, match=r"difference: .* rounding explains 0\.25"):
        assert_close_but_for_rounding(difference, {"difference": torch.tensor(0.5)}, exactly)


def test_a_wrong_gradient_is_not_excused() -> None:
    weight = torch.linspace(0.5, 1.5, 1000)

    def gradient(nudge: Nudge) -> dict[str, torch.Tensor]:
        return {"grad": 2 * nudge(weight)}

    assert_close_but_for_rounding(gradient, {"grad": (2 * weight).norm()}, exactly)
    with pytest.raises(AssertionError, match="grad"):
        assert_close_but_for_rounding(gradient, {"grad": (2.00001 * weight).norm()}, exactly)


def test_not_a_number_is_wrong() -> None:
    with pytest.raises(AssertionError, match="loss"):
        assert_close_but_for_rounding(
            lambda nudge: {"loss": nudge(torch.tensor(math.nan))}, {"loss": torch.tensor(1.0)}, exactly
        )


def test_a_result_more_or_less_is_wrong() -> None:
    with pytest.raises(AssertionError):
        assert_close_but_for_rounding(lambda nudge: {}, {"loss": torch.tensor(1.0)}, exactly)


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
