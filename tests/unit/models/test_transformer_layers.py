"""Relative positions, masks and packing against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.config.transformer import EncoderConfig
from cosyflow.models.flow.encoder import Lookahead, Upsample
from cosyflow.models.layers.attention import RelativeAttention, align_distances, distance_table
from cosyflow.models.layers.basic import CausalConv1d, Dropout
from cosyflow.models.layers.encoder import Encoder, GrowingSequence
from cosyflow.models.layers.packing import Rows, attention_mask, valid_mask

CAUSAL = EncoderConfig(12, 16, attention_heads=2, linear_units=24, num_blocks=2, static_chunk_size=1)


@given(queries=st.integers(1, 6), before=st.integers(0, 6), causal=st.booleans())
def test_align_distances_finds_the_distance_of_each_pair(queries: int, before: int, causal: bool) -> None:
    keys = before + queries
    nearest = 0 if causal else 1 - queries
    scores = torch.arange(keys - 1, nearest - 1, -1).expand(1, 1, queries, -1)  # each score is its own distance
    aligned = align_distances(scores, keys)[0, 0]
    for query in range(queries):
        for key in range(before + query + 1 if causal else keys):
            assert aligned[query, key] == before + query - key


def test_distance_table_has_no_longest_distance() -> None:
    """D23: the official table ends at 5000 positions."""
    table = distance_table(7000, 6999, 4, torch.zeros(1))
    wanted = [math.sin(7000), math.cos(7000), math.sin(70), math.cos(70)]
    torch.testing.assert_close(table[0], torch.tensor(wanted), rtol=0, atol=1e-3)


@pytest.mark.medium
def test_a_sequence_beyond_5000_positions() -> None:
    """D23"""
    small = EncoderConfig(4, 4, attention_heads=1, linear_units=4, num_blocks=1, static_chunk_size=1)
    encoder = Encoder(small).eval()
    x = torch.randn(5003, 4)
    with torch.no_grad():
        encoded = encoder.forward_packed(x, Rows.of(torch.zeros(5003).long(), torch.arange(5003), [5003]))
        first = encoder.forward_packed(x[:10], Rows.of(torch.zeros(10).long(), torch.arange(10), [10]))
    torch.testing.assert_close(encoded[:10], first)
    assert encoded.isfinite().all()


def test_attention_mask_by_chunks() -> None:
    valid = valid_mask(torch.tensor([5, 2]), 5)
    seen = attention_mask(valid, 2)[:, 0]
    whole = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert seen[0].int().tolist() == whole
    assert seen[1].int().tolist() == [[1, 1, 0, 0, 0]] * 5
    assert attention_mask(valid, 0)[1, 0].int().tolist() == [[1, 1, 0, 0, 0]]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), padding=st.integers(0, 7))
def test_pack_undoes_unpack(lengths: list[int], padding: int) -> None:
    sequence = torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([*lengths, padding]))
    position = torch.cat([torch.arange(length) for length in (*lengths, padding)])
    flat = torch.randn(len(sequence), 3)
    rows = Rows.of(sequence, position, lengths)
    table = rows.unpack(flat)
    for row, part in enumerate(flat[: sum(lengths)].split(lengths)):
        torch.testing.assert_close(table[row, : len(part)], part)
        assert not table[row, len(part) :].any()
    torch.testing.assert_close(rows.pack(table)[: sum(lengths)], flat[: sum(lengths)])


@settings(deadline=None, max_examples=10)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_packed_equals_padded(lengths: list[int]) -> None:
    encoder = Encoder(CAUSAL).eval()
    padded = torch.randn(len(lengths), max(lengths), 12)
    expected = encoder(padded, valid_mask(torch.tensor(lengths), max(lengths)))
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    position = torch.cat([torch.arange(length) for length in lengths])
    one_by_one = Rows.of(sequence, position, lengths)
    together = Rows.of_all(sequence, position, len(lengths) + 1, max(lengths) + 2)  # as in compiled code
    for rows in (one_by_one, together):
        flat = encoder.forward_packed(padded[sequence, position], rows)
        torch.testing.assert_close(flat, expected[sequence, position], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_packed_attention_without_causality(chunk_size: int) -> None:
    lengths = [4, 9, 1]
    attention = RelativeAttention(16, 2, dropout_rate=0.0)
    x, valid = torch.randn(3, 9, 16), valid_mask(torch.tensor(lengths), 9)
    sequence, position = valid.nonzero(as_tuple=True)
    mask, table = attention_mask(valid, chunk_size), attention.project_distances(distance_table(8, -8, 16, x))
    query, key, value = attention.project(x)
    expected = attention.attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), table, mask)[valid]
    for rows in (Rows.of(sequence, position, lengths), Rows.of_all(sequence, position, 3, 9)):
        mixed = attention.attend_packed(query[valid], key[valid], value[valid], table, mask, rows)
        torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)


def test_growing_sequence_equals_the_whole() -> None:
    """300 positions are more than it first has room for."""
    encoder = Encoder(CAUSAL).eval()
    x = torch.randn(1, 300, 12)
    sequence = GrowingSequence(encoder)
    with torch.no_grad():
        parts = [sequence.append(part) for part in x.split([7, 1, 1, 200, 1, 90], dim=1)]
        whole = encoder(x, torch.ones(1, 300, dtype=torch.bool))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_packing_needs_a_causal_encoder() -> None:
    whole = EncoderConfig(12, 16, attention_heads=2, linear_units=24, num_blocks=1)
    with pytest.raises(ValueError, match="causal"):
        Encoder(whole).forward_packed(torch.randn(3, 12), Rows(torch.arange(3), 1, 3, None))


@pytest.mark.parametrize("chunk_size", [0, 1, 5])
def test_encoder_can_be_scripted(chunk_size: int) -> None:
    config = EncoderConfig(12, 16, attention_heads=2, linear_units=24, num_blocks=2, static_chunk_size=chunk_size)
    encoder = Encoder(config).eval()
    scripted = torch.jit.freeze(torch.jit.script(encoder))
    for length in (3, 17):
        x, valid = torch.randn(2, length, 12), valid_mask(torch.tensor([length, 2]), length)
        torch.testing.assert_close(scripted(x, valid), encoder(x, valid))


def dependencies(module: torch.nn.Module, x: torch.Tensor, output: int) -> list[int]:
    """The positions of x [1, T, C] that `module(x)[:, output]` depends on."""
    x = x.clone().requires_grad_()
    module(x)[:, output].sum().backward()
    return x.grad.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()


@pytest.mark.parametrize("shape", [(1000, 1001), (3, 5, 7)])
def test_dropout_keeps_its_share_and_the_mean(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape, requires_grad=True)
    layer = Dropout(0.1)
    dropped = layer(x)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    if x.numel() > 1000:
        assert dropped.mean().item() == pytest.approx(1, abs=2e-3)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, dropped.detach())  # the same elements
    assert not torch.equal(layer(x), dropped)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_attention_dropout_is_off_in_evaluation(rate: float) -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(16, 2, dropout_rate=rate)
    query, key, value = torch.randn(3, 1, 2, 6, 8)
    table, mask = attention.project_distances(distance_table(5, -5, 16, query)), torch.ones(1, 1, 1, 6).bool()
    trained = torch.stack([attention.attend(query, key, value, table, mask) for _ in range(400)])
    evaluated = attention.eval().attend(query, key, value, table, mask)
    torch.testing.assert_close(trained.mean(0), evaluated, rtol=0, atol=0.1 if rate else 1e-5)
    assert (trained.std(0).max() > 0.01) == (rate > 0)


def test_what_the_convolutions_see() -> None:
    class Causal(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = CausalConv1d(4, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.convolution(x.transpose(1, 2)).transpose(1, 2)

    x = torch.randn(1, 12, 4)
    assert dependencies(Causal(), x, 5) == [3, 4, 5]
    assert dependencies(Lookahead(4, 64, 3), x, 5) == [3, 4, 5, 6, 7, 8]
    assert dependencies(Upsample(4, 2), x, 10) == [3, 4, 5]
    assert Upsample(4, 2)(x).shape == (1, 24, 4)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"output_size": 30}, "output_size"), ({"num_blocks": 0}, "num_blocks"), ({"dropout_rate": 1.0}, "dropout_rate")],
)
def test_impossible_settings_are_named(change: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        EncoderConfig(**change)
