"""Packing, precision and memory options change how the language model computes, not what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, Qwen2Config
from cosyflow.models.llm import loss
from cosyflow.models.llm.batch import Example
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.speech_lm import SpeechLM

QWEN2 = Qwen2Config(vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
V2 = CosyVoice2LMConfig(qwen2=QWEN2, speech_token_size=50)
V3 = CosyVoice3LMConfig(qwen2=QWEN2, speech_token_size=50, lsm_weight=0.1)


def model_of(config) -> SpeechLM:
    torch.manual_seed(0)
    return SpeechLM(config)


def some_examples(count: int = 6) -> list[Example]:
    draw = np.random.default_rng(0)
    return [
        Example(f"utterance {number}", draw.integers(0, 120, 3 + number), draw.integers(0, 50, 40 - 5 * number))
        for number in range(count)
    ]


def gradients(model, batches):
    """The mean loss over all targets, and its gradients."""
    model.zero_grad()
    outputs = [model(batch) for batch in batches]
    mean = sum(output.loss_sum for output in outputs) / sum(batch.num_targets for batch in batches)
    mean.backward()
    return mean.detach(), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("config", [V2, V3], ids=["v2", "v3"])
@pytest.mark.parametrize("budget", [None, 512], ids=["exact", "budget"])
def test_packed_equals_one_by_one(config, budget):
    model, examples = model_of(config), some_examples()
    bistream = np.array([True, False] * 3)

    packed = gradients(model, [build_batch(examples, bistream, config, budget)])
    single = gradients(model, [build_batch([e], b[None], config) for e, b in zip(examples, bistream, strict=True)])

    torch.testing.assert_close(packed[0], single[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(packed[1], single[1], rtol=1e-4, atol=1e-7)


def test_chunked_loss_equals_the_whole(monkeypatch):
    model, batch = model_of(V3), build_batch(some_examples(), np.ones(6, dtype=bool), V3)
    whole = gradients(model, [batch])
    monkeypatch.setattr(loss, "CHUNK", 7)
    chunked = gradients(model, [batch])

    torch.testing.assert_close(chunked[0], whole[0])
    torch.testing.assert_close(chunked[1], whole[1], rtol=1e-4, atol=1e-7)


def test_activation_checkpointing_changes_no_gradient():
    model, batch = model_of(V2), build_batch(some_examples(), np.ones(6, dtype=bool), V2)
    plain = gradients(model, [batch])
    checkpointed_model = model_of(replace(V2, activation_checkpointing=True))
    checkpointed = gradients(checkpointed_model, [batch])

    torch.testing.assert_close(checkpointed, plain)


def test_bfloat16_keeps_float32_weights_and_gradients():
    batch = build_batch(some_examples(), np.ones(6, dtype=bool), V2)
    model = model_of(replace(V2, compute_dtype="bfloat16"))
    mean, grads = gradients(model, [batch])

    assert model.hidden(batch).dtype == torch.bfloat16
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert {grad.dtype for grad in grads.values()} == {torch.float32}
    exact, _ = gradients(model_of(V2), [batch])
    torch.testing.assert_close(mean, exact, rtol=1e-2, atol=0)


def test_a_frozen_text_table_gets_no_gradient():
    batch = build_batch(some_examples(), np.ones(6, dtype=bool), V2)
    _, grads = gradients(model_of(replace(V2, freeze_text_embedding=True)), [batch])

    assert "llm.model.model.embed_tokens.weight" not in grads
    assert "llm.model.model.layers.0.self_attn.q_proj.weight" in grads


def test_the_text_head_is_the_text_table():
    model = model_of(V2)
    keys = model.state_dict()

    assert keys["llm.model.lm_head.weight"].data_ptr() == keys["llm.model.model.embed_tokens.weight"].data_ptr()
    assert sum(name.endswith(("lm_head.weight", "embed_tokens.weight")) for name, _ in model.named_parameters()) == 1


def test_flops_count_each_multiplied_weight():
    """Against the operations that torch counts, attention aside, which its counter takes as a full square."""
    from torch.utils.flop_counter import FlopCounterMode

    model, batch = model_of(V2), build_batch(some_examples(1), np.zeros(1, dtype=bool), V2)
    with FlopCounterMode(display=False) as counter:
        model(batch)
    counts = counter.get_flop_counts()["Global"]
    products = sum(flops for name, flops in counts.items() if "attention" not in str(name))

    length = batch.lengths[0]
    attention = 6 * QWEN2.num_hidden_layers * QWEN2.hidden_size * length**2
    assert model.training_flops(batch.lengths, batch.num_targets) == 3 * products + attention
