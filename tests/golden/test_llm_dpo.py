"""Preference optimisation against the official code with its mask put right (`out.fixed.*`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, DPOConfig, Qwen2Config
from cosyflow.models.llm.batch import IGNORE, Example
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.loss import dpo_loss, preference_loss
from cosyflow.models.llm.speech_lm import SpeechLM


@pytest.mark.golden_kind("dpo_loss")
def test_preference_loss(golden_case):
    inputs, out = golden_case.group("in."), golden_case.group("out.")
    policy = torch.stack([inputs["policy_chosen"], inputs["policy_rejected"]])
    reference = torch.stack([inputs["ref_chosen"], inputs["ref_rejected"]])
    for name, settings in golden_case.info["config"].items():
        loss, rewards = preference_loss(policy, reference, DPOConfig(**settings))
        torch.testing.assert_close(loss.mean(), out[f"{name}.loss"], rtol=1e-5, atol=0)
        torch.testing.assert_close(rewards[0], out[f"{name}.chosen_reward"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(rewards[1], out[f"{name}.rejected_reward"], rtol=1e-5, atol=1e-7)


def setup(case):
    """Policy, reference, examples with chosen and rejected speech, and whether each is drawn to be interleaved."""
    values, inputs = case.info["config"], case.group("in.")
    config = CosyVoice2LMConfig(
        qwen2=Qwen2Config.from_huggingface(values["qwen2_config"]),
        speech_token_size=values["speech_token_size"],
        mix_ratio=tuple(values["mix_ratio"]),
    )
    policy, reference = SpeechLM(config), SpeechLM(config)
    policy.load_state_dict(case.state_dict())
    reference.load_state_dict(case.group("wref."))
    names = ("text_token", "speech_token", "reject_speech_token")
    columns = ([row[:n].numpy() for row, n in zip(inputs[k], inputs[f"{k}_len"], strict=True)] for k in names)
    examples = [
        Example(str(number), text, chosen, rejected=rejected)
        for number, (text, chosen, rejected) in enumerate(zip(*columns, strict=True))
    ]
    return policy, reference, examples, case.tensors["rand.python_random"].numpy() < 0.5


def separate_layouts(examples, bistream, config):
    """Each sequence with the layout that the official code gives it, whatever its partner has (deviation "pairs")."""
    chosen = [replace(example, rejected=None) for example in examples]
    rejected = [replace(example, speech=example.rejected, rejected=None) for example in examples]
    batch = build_batch(chosen + rejected, bistream, config)
    return replace(batch, utterances=batch.utterances[: len(examples)])


@pytest.mark.golden_kind(r"cosyvoice2\.llm\.dpo")
def test_losses_and_rewards(golden_case):
    policy, reference, examples, bistream = setup(golden_case)
    batch = separate_layouts(examples, bistream, policy.config)
    settings = DPOConfig(**golden_case.info["dpo"], logprob="mean")
    logprob = policy(batch, sequence_logprob=True).per_sequence_logprob
    with torch.no_grad():
        reference_logprob = reference(batch, sequence_logprob=True).per_sequence_logprob
    output = dpo_loss(logprob, reference_logprob, batch, settings)

    out = golden_case.group("out.fixed.")
    means = logprob / torch.tensor(batch.target_counts)
    torch.testing.assert_close(means, torch.cat([out["chosen_logps"], out["rejected_logps"]]), rtol=1e-5, atol=0)
    reference_means = reference_logprob / torch.tensor(batch.target_counts)
    expected = torch.cat([out["ref_chosen_logps"], out["ref_rejected_logps"]])
    torch.testing.assert_close(reference_means, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(output.preference.mean(), out["dpo_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(output.loss_sum / batch.num_chosen_targets, out["total_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(output.chosen_reward, out["chosen_reward"], rtol=0, atol=1e-6)
    torch.testing.assert_close(output.rejected_reward, out["rejected_reward"], rtol=0, atol=1e-6)
    torch.testing.assert_close(output.num_correct / batch.num_pairs, out["dpo_acc"])


@pytest.mark.golden_kind(r"cosyvoice2\.llm\.dpo")
def test_the_official_mask_takes_the_ignored_positions(golden_case):
    """Deviation "DPO mask": `out.asis.*` is the mean log-probability of id 0 where there is no target."""
    policy, _, examples, bistream = setup(golden_case)
    batch = separate_layouts(examples, bistream, policy.config)
    official = torch.cat([golden_case.tensors[f"out.asis.{name}_logps"] for name in ("chosen", "rejected")])
    width = golden_case.tensors["out.lm_target"].shape[1]
    unpadded = np.flatnonzero(np.array(batch.lengths) == width)
    assert len(unpadded) > 0
    with torch.no_grad():
        of_id_0 = policy.llm_decoder(policy.hidden(batch)).log_softmax(dim=-1)[:, 0]
    for number in unpadded:
        ignored = (batch.sequence == number) & (batch.target == IGNORE)
        torch.testing.assert_close(of_id_0[ignored].mean(), official[number], rtol=1e-5, atol=0)


@pytest.mark.golden_kind(r"cosyvoice2\.llm\.dpo")
def test_pairs_share_one_layout(golden_case):
    """Deviation "pairs": the official code interleaves by the length of each sequence, ours by that of both."""
    policy, _, examples, bistream = setup(golden_case)
    fill = policy.layout.fill

    def interleaved(batch):
        return torch.stack([(batch.target[batch.sequence == n] == fill).any() for n in range(batch.num_sequences)])

    shared = interleaved(build_batch(examples, bistream[: len(examples)], policy.config)).unflatten(0, (2, -1))
    official = (golden_case.tensors["out.lm_target"] == fill).any(dim=1).unflatten(0, (2, -1))
    assert (interleaved(separate_layouts(examples, bistream, policy.config)) == official.flatten()).all()
    assert (shared[0] == shared[1]).all()
    assert (shared[0] == official.all(dim=0)).all()
