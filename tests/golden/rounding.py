"""What float32 leaves open, so that a case is judged alike on every processor.

The golden numbers carry the rounding of the processor they were made on, ours that of another one, and mathematical
libraries add in another order on each. Where a sum cancels or a logarithm is taken of little, the two differ by more
than the suggested tolerance although both are right: in float64 the very same graph is as far from the one as from
the other. Rounding is therefore measured, as the distance of our float32 results from ours in float64, and what misses
its tolerance must be about as close to the latter. An error of the computation is in both, so it is not excused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

Nudge = Callable[[torch.Tensor], torch.Tensor]

NUDGES = 3  # the change of one number by one nudge may be small by chance
REFERENCE = 3
"""How much farther from what is exact than the worst of ours the reference may be: it is a further draw of rounding."""
FLOAT32_ROUNDING = torch.finfo(torch.float32).eps


class Tolerance(NamedTuple):
    relative: float
    absolute: float = 0.0


def unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def by_one_unit_in_the_last_place(seed: int) -> Nudge:
    """Moves each number up or down, at random, to the next one in its format; leaves integers alone."""
    generator = torch.Generator().manual_seed(seed)

    def nudge(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        upwards = torch.randint(0, 2, tensor.shape, generator=generator, dtype=torch.bool)
        return torch.nextafter(tensor, torch.where(upwards, torch.inf, -torch.inf).to(tensor.dtype))

    return nudge


def nudge_parameters(module: nn.Module, nudge: Nudge) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(nudge(parameter))


def in_double(compute: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What a computation gives when all that it builds is float64; its inputs must be so, too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return compute()
    finally:
        torch.set_default_dtype(before)


def assert_close_but_for_rounding(
    compute: Callable[[Nudge], dict[str, torch.Tensor]],
    expected: dict[str, torch.Tensor],
    tolerance: Callable[[str], Tolerance],
    exact: Callable[[], dict[str, torch.Tensor]],
) -> None:
    """Compares named results with expected ones: of the same shape by element, of a vector also with its L2 norm.

    Where one misses its tolerance, everything is computed in float64 (`exact`), and in float32 again with weights and
    inputs that differ in the last place (`compute` passes them through what it is given). The reference may then be
    farther from the former by REFERENCE times what the worst of ours is.
    """
    ours = compute(unchanged)
    assert ours.keys() == expected.keys()
    missed = [name for name in ours if not excess(ours[name], expected[name], tolerance(name)) <= 0]
    if not missed:
        return
    exactly = exact()
    over = {name: excess(exactly[name], expected[name], tolerance(name)) for name in missed}
    rounding = dict.fromkeys(missed, 0.0)
    for seed in range(NUDGES + 1):
        each = compute(by_one_unit_in_the_last_place(seed)) if seed else ours
        for name in missed:
            rounding[name] = max(rounding[name], REFERENCE * distance(each[name], exactly[name], expected[name]))
        if all(over[name] <= rounding[name] for name in missed):
            return  # further draws would only allow more
    wrong = [
        f"{name} is missed by {over[name]:.2g} more than the tolerance; rounding explains {rounding[name]:.2g}"
        for name in missed
        if not over[name] <= rounding[name]
    ]
    assert not wrong, "\n".join(wrong)


def excess(found: torch.Tensor, expected: torch.Tensor, tolerance: Tolerance) -> float:
    """By how much more than the tolerance a result is off; not a number where either is not."""
    if expected.dim() == 0:
        found = found if found.dim() == 0 else found.double().norm()
    assert found.shape == expected.shape
    allowed = tolerance.relative * expected.double().abs() + tolerance.absolute
    return ((found.double() - expected.double()).abs() - allowed).max().item()


def distance(one: torch.Tensor, other: torch.Tensor, expected: torch.Tensor) -> float:
    """Of two results: of the elements, or of the vectors where their norm is what is expected."""
    difference = one.double() - other.double()
    return (difference.norm() if expected.dim() == 0 else difference.abs().max()).item()


def assert_log_magnitudes_close(
    ours: torch.Tensor, expected: torch.Tensor, log_magnitude: torch.Tensor, roundings: float
) -> None:
    """Compares logarithms of spectral bands, [frames, bands], to 1e-4 and the rounding of the frame's loudest band.

    A Fourier transform rounds all its bands relative to the loudest one, and so a quiet one to less of itself.

    Args:
        log_magnitude: [frames, bands] natural logarithms of the amplitude; of a power it is half the logarithm.
        roundings: how many roundings of the loudest band the differences may have.
    """
    loudest = log_magnitude.max(dim=1, keepdim=True).values
    allowed = 1e-4 + roundings * FLOAT32_ROUNDING * torch.exp(loudest - log_magnitude)
    difference = (ours - expected).abs()
    assert difference.shape == allowed.shape
    worst = (difference - allowed).argmax()
    assert (difference <= allowed).all(), (
        f"at {[index.item() for index in torch.unravel_index(worst, ours.shape)]}: {ours.flatten()[worst]} instead of "
        f"{expected.flatten()[worst]}, {allowed.flatten()[worst]:.2g} is allowed"
    )
