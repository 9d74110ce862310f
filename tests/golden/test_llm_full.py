"""The released sizes: every state_dict key and shape, and the loss of full-size models with weights made by rule."""

from __future__ import annotations

import json
from zlib import crc32

import numpy as np
import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, Qwen2Config
from cosyflow.models.llm.batch import Example
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.speech_lm import SpeechLM

CONFIGS = {"cosyvoice2": CosyVoice2LMConfig, "cosyvoice3": CosyVoice3LMConfig}


@pytest.mark.golden_files("keytables/cosyvoice[23]_llm.json")
def test_keys_and_shapes(golden_file):
    table = json.loads(golden_file.read_text())
    with torch.device("meta"):
        model = SpeechLM(CONFIGS[table["model"]](qwen2=Qwen2Config.from_huggingface(table["qwen2_config"])))

    own = model.state_dict()
    assert list(own) == list(table["state_dict"])
    assert {key: list(value.shape) for key, value in own.items()} == {
        key: entry["shape"] for key, entry in table["state_dict"].items()
    }
    assert sum(weight.numel() for weight in model.parameters()) == table["num_unique_parameters"]


def weight_by_rule(key: str, shape: torch.Size, salt: str) -> torch.Tensor:
    """The rule that a full-size case tells in `config.weights_rule`."""
    normal = np.random.RandomState(crc32((salt + key).encode())).standard_normal(tuple(shape)).astype(np.float32)
    weight = torch.from_numpy(normal)
    if key.endswith("bias"):
        return 0.1 * weight
    if weight.dim() == 1:
        return 1 + 0.1 * weight
    return weight / (weight.numel() / shape[0]) ** 0.5


@pytest.mark.slow
@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.train\.full")
def test_full_size_loss(golden_case):
    config = CONFIGS[golden_case.info["kind"].split(".")[0]](
        qwen2=Qwen2Config.from_huggingface(golden_case.info["qwen2_config"])
    )
    with torch.device("meta"):
        model = SpeechLM(config)
    model.to_empty(device="cpu")
    salt = golden_case.info["config"]["salt"]
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.copy_(weight_by_rule(key, weight.shape, salt))
    inputs, out = golden_case.group("in."), golden_case.group("out.")

    def utterance_ids(name, number):
        length = inputs[f"{name}_len"][number]
        return inputs[name][number, :length].numpy()

    count = len(inputs["text_token"])
    parts = ["text_token", "speech_token"] + ["instruct_token"] * ("instruct_token" in inputs)
    examples = [Example(str(number), *(utterance_ids(part, number) for part in parts)) for number in range(count)]
    batch = build_batch(examples, np.zeros(count, dtype=bool), config)
    with torch.no_grad():
        output = model(batch)
        logits = torch.split(model.llm_decoder(model.hidden(batch)), batch.lengths)

    torch.testing.assert_close(output.loss_sum / batch.num_targets, out["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(output.num_correct / batch.num_targets, out["acc"], rtol=1e-5, atol=0)
    for number, sequence in enumerate(logits):
        expected = out["logits_every_97th"][number, : len(sequence)]
        torch.testing.assert_close(sequence[:, ::97], expected, rtol=0, atol=2e-4)
        torch.testing.assert_close(sequence.norm(dim=-1), out["logits_norm"][number, : len(sequence)])
