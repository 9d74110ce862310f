"""The language models of CosyVoice 2 and 3 against numbers of the official code: layout, loss and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, Qwen2Config
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.speech_lm import SpeechLM

CONFIGS = {"cosyvoice2": CosyVoice2LMConfig, "cosyvoice3": CosyVoice3LMConfig}


def config_of(case):
    values = case.info["config"]
    return CONFIGS[case.info["kind"].split(".")[0]](
        qwen2=Qwen2Config.from_huggingface(values["qwen2_config"]),
        speech_token_size=values["speech_token_size"],
        lsm_weight=values["lsm_weight"],
        mix_ratio=tuple(values["mix_ratio"]),
    )


def model_of(case) -> SpeechLM:
    model = SpeechLM(config_of(case))
    model.load_state_dict(case.state_dict())
    return model


def rows(inputs: dict[str, torch.Tensor], name: str) -> list[np.ndarray | None]:
    """The padded `name` of a case's inputs as one array an utterance."""
    if name not in inputs:
        return [None] * len(inputs["text_token"])
    lengths = inputs[f"{name}_len"].tolist()
    return [row[:length].numpy() for row, length in zip(inputs[name], lengths, strict=True)]


def examples_of(inputs: dict[str, torch.Tensor]) -> list[Example]:
    columns = zip(rows(inputs, "text_token"), rows(inputs, "speech_token"), rows(inputs, "instruct_token"), strict=True)
    return [Example(f"utterance {number}", *column) for number, column in enumerate(columns)]


def batch_of(case, budget: int | None = None) -> PackedBatch:
    bistream = case.tensors["rand.python_random"].numpy() < 0.5
    return build_batch(examples_of(case.group("in.")), bistream, config_of(case), budget)


def padded(flat: torch.Tensor, like: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Lays sequences that lie end to end out in the shape of `like`; what they do not cover is taken from there."""
    result = like.clone()
    for number, sequence in enumerate(torch.split(flat[: sum(lengths)], lengths)):
        result[number, : len(sequence)] = sequence
    return result


@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.train")
@pytest.mark.parametrize("budget", [None, 1024], ids=["exact", "budget"])
def test_layout(golden_case, budget):
    batch = batch_of(golden_case, budget)
    out = golden_case.group("out.")

    assert batch.lengths == out["lm_input_len"].tolist()
    torch.testing.assert_close(padded(batch.target, out["lm_target"], batch.lengths), out["lm_target"])
    embedded = model_of(golden_case).embed(batch)
    torch.testing.assert_close(padded(embedded, out["lm_input"], batch.lengths), out["lm_input"])


@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.train")
@pytest.mark.parametrize("budget", [None, 1024], ids=["exact", "budget"])
def test_loss_and_gradients(golden_case, budget):
    model, batch, out = model_of(golden_case), batch_of(golden_case, budget), golden_case.group("out.")

    output = model(batch, sequence_logprob=True)
    divisor = batch.num_targets if golden_case.info["config"]["length_normalized_loss"] else batch.num_sequences
    loss = output.loss_sum / divisor
    loss.backward()

    torch.testing.assert_close(loss.detach(), out["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(output.num_correct / batch.num_targets, out["acc"], rtol=1e-5, atol=0)
    if model.config.lsm_weight == 0:
        torch.testing.assert_close(-output.per_sequence_logprob.sum(), output.loss_sum)
    logits = model.llm_decoder(model.hidden(batch))
    torch.testing.assert_close(padded(logits, out["logits"], batch.lengths), out["logits"], rtol=0, atol=2e-4)
    norms = {name: weight.grad.norm() for name, weight in model.named_parameters() if weight.grad is not None}
    expected = golden_case.group("grad.")
    assert norms.keys() == expected.keys()
    torch.testing.assert_close(norms, expected, rtol=1e-3, atol=1e-6)
