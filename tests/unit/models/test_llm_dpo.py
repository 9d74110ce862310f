"""Preference optimisation teaches the preference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, DPOConfig, Qwen2Config
from cosyflow.models.llm.batch import IGNORE, Example
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.loss import dpo_loss
from cosyflow.models.llm.speech_lm import SpeechLM

CONFIG = CosyVoice2LMConfig(
    qwen2=Qwen2Config(vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    speech_token_size=20,
)


def seeded_model() -> SpeechLM:
    torch.manual_seed(0)
    return SpeechLM(CONFIG)


def pairs(count: int, seed: int):
    """Chosen speech has ids below 10, rejected speech the others."""
    draw = np.random.default_rng(seed)
    return build_batch(
        [
            Example(
                f"utterance {number}",
                draw.integers(0, 40, 4),
                draw.integers(0, 10, draw.integers(8, 14)),
                rejected=draw.integers(10, 20, draw.integers(8, 14)),
            )
            for number in range(count)
        ],
        draw.random(count) < 0.5,
        CONFIG,
    )


def logprobs(model, batch):
    return model(batch, sequence_logprob=True).per_sequence_logprob


def preferring(ids: slice) -> SpeechLM:
    model = seeded_model()
    with torch.no_grad():
        model.llm_decoder.bias[ids] += 1.0
    return model


@pytest.mark.parametrize("logprob", ["sum", "mean"])
@pytest.mark.parametrize("ipo", [False, True])
def test_a_policy_that_prefers_the_chosen_scores_above_one_that_does_not(logprob, ipo):
    """Deviation "DPO mask": by the official formula both policies score the same."""
    batch, settings = pairs(8, seed=1), DPOConfig(beta=0.1, logprob=logprob, ipo=ipo)
    with torch.no_grad():
        reference = logprobs(seeded_model(), batch)
        good, bad = (
            dpo_loss(logprobs(preferring(ids), batch), reference, batch, settings) for ids in (slice(10), slice(10, 20))
        )

    assert good.preference.mean() < bad.preference.mean()
    assert good.num_correct == 8
    assert bad.num_correct == 0


def test_the_official_formula_sees_no_difference():
    """Where a sequence has no target, chosen and rejected have the same past, and so the same scores."""
    batch = pairs(8, seed=1)
    with torch.no_grad():
        policy = preferring(slice(10))
        of_id_0 = policy.llm_decoder(policy.hidden(batch)).log_softmax(dim=-1)[:, 0]
    not_interleaved = [n for n in range(8) if not (batch.target[batch.sequence == n] == CONFIG.layout.fill).any()]
    assert not_interleaved
    for number in not_interleaved:
        chosen, rejected = (
            of_id_0[(batch.sequence == sequence) & (batch.target == IGNORE)] for sequence in (number, number + 8)
        )
        torch.testing.assert_close(chosen, rejected)


def test_a_policy_equal_to_its_reference_starts_at_log_2():
    batch = pairs(4, seed=2)
    values = logprobs(seeded_model(), batch).detach()
    output = dpo_loss(values, values, batch, DPOConfig(sft_weight=0.0))

    assert output.loss_sum / batch.num_chosen_targets == pytest.approx(math.log(2))


@pytest.mark.medium
def test_200_steps_teach_unseen_pairs():
    policy, reference, settings = seeded_model(), seeded_model(), DPOConfig(beta=0.1)
    unseen = pairs(40, seed=3)
    with torch.no_grad():
        before = logprobs(reference, unseen)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    for step in range(200):
        batch = pairs(4, seed=100 + step)
        with torch.no_grad():
            anchor = logprobs(reference, batch)
        loss = dpo_loss(logprobs(policy, batch), anchor, batch, settings).loss_sum / batch.num_chosen_targets
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        after = logprobs(policy, unseen)
    output = dpo_loss(after, before, unseen, settings)
    assert output.num_correct / unseen.num_pairs > 0.9
    assert after[:40].sum() > before[:40].sum()
