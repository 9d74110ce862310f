"""Layers that compute what torch's own do, by quicker ways on a CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cosyflow import backends
from cosyflow.models.layers.basic import Linear, Mish

ROWS, INPUTS, OUTPUTS = 300, 256, 320


@pytest.mark.skipif(not backends.prefers_onednn(), reason="this processor or torch has no AVX-512 oneDNN")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("layout", ["flat", "batch", "transposed"])
def test_a_large_product_by_onednn_has_float32_precision(layout: str, bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(INPUTS, OUTPUTS, bias=bias)
    x = {
        "flat": torch.randn(ROWS, INPUTS),
        "batch": torch.randn(3, ROWS // 3, INPUTS),
        "transposed": torch.randn(INPUTS, ROWS).t(),
    }[layout].requires_grad_()
    assert x.numel() * OUTPUTS >= backends.WORTHWHILE
    gradient = torch.randn(*x.shape[:-1], OUTPUTS)
    weights = [x, *layer.parameters()]

    out = layer(x)
    gradients = torch.autograd.grad(out, weights, gradient)

    assert "OneDnn" in type(out.grad_fn).__name__
    exact = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    exact_gradients = torch.autograd.grad(exact, weights, gradient.double())
    for value, right in zip((out, *gradients), (exact, *exact_gradients), strict=True):
        assert value.shape == right.shape
        assert (value - right).abs().max() < 2e-6 * right.abs().max()


def test_small_products_and_other_types_are_torchs_own() -> None:
    layer = Linear(8, 8)
    assert torch.equal(layer(torch.ones(4, 8)), F.linear(torch.ones(4, 8), layer.weight, layer.bias))
    assert layer(torch.ones(4, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_mish_takes_a_gradient_in_any_layout() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 50, requires_grad=True)
    gradient = torch.randn(2, 50, 16).transpose(1, 2)

    (ours,) = torch.autograd.grad(Mish()(x), x, gradient)

    (right,) = torch.autograd.grad(F.mish(x), x, gradient)
    torch.testing.assert_close(ours, right)
