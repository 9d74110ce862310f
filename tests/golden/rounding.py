"""What float32 leaves open, so that a case is judged alike on every processor.

The golden numbers carry the rounding of the processor they were made on, ours that of another one, and mathematical
libraries add in another order on each. Where a sum cancels or a logarithm is taken of little, the two differ by more
than the suggested tolerance although both are right: in float64 the very same graph is as far from the one as from
the other. Rounding is therefore measured, and added to the tolerance. An error of the computation moves the plain and
the nudged result alike, so it is not excused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

Nudge = Callable[[torch.Tensor], torch.Tensor]

NUDGES = 3  # the change of one number by one nudge may be small by chance
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


def assert_close_but_for_rounding(
    compute: Callable[[Nudge], dict[str, torch.Tensor]],
    expected: dict[str, torch.Tensor],
    tolerance: Callable[[str], Tolerance],
) -> None:
    """Compares named results with expected scalars: a scalar itself, of a vector the L2 norm.

    Where one misses its tolerance, everything is computed again with weights and inputs that differ in the last place
    (`compute` passes them through what it is given); twice the largest change of that result is then allowed in
    addition, once for our rounding and once for that of the reference.
    """
    ours = compute(unchanged)
    assert ours.keys() == expected.keys()
    excess = {}
    for name, value in ours.items():
        difference = abs((value if value.dim() == 0 else value.double().norm()).item() - expected[name].item())
        relative, absolute = tolerance(name)
        excess[name] = difference - relative * abs(expected[name].item()) - absolute
    missed = [name for name, over in excess.items() if not over <= 0]
    if not missed:
        return
    rounding = dict.fromkeys(missed, 0.0)
    for seed in range(1, NUDGES + 1):
        nudged = compute(by_one_unit_in_the_last_place(seed))
        for name in missed:
            change = (nudged[name] - ours[name]).double().norm().item()
            rounding[name] = max(rounding[name], 2 * change)
    wrong = [
        f"{name}: {expected[name].item()} is missed by {excess[name]:.2g} more than the tolerance, "
        f"of which rounding explains {rounding[name]:.2g}"
        for name in missed
        if not excess[name] <= rounding[name]
    ]
    assert not wrong, "\n".join(wrong)


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
