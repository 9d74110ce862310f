"""The language model of CosyVoice 1 against numbers of the official code."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosyflow.config.llm import SamplingConfig
from cosyflow.config.transformer import CosyVoice1LMConfig, EncoderConfig
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.decoding import Sampler, decode, greedy, multinomial
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.transformer_lm import TransformerLM


def encoder_config(official: dict[str, Any]) -> EncoderConfig:
    sizes = ("input_size", "output_size", "attention_heads", "linear_units", "num_blocks", "static_chunk_size")
    rates = ("dropout_rate", "positional_dropout_rate", "attention_dropout_rate")
    return EncoderConfig(
        **{name: official[name] for name in (*sizes, *rates, "input_layer")},
        layer={"ConformerEncoder": "conformer", "TransformerEncoder": "transformer"}[official["type"]],
        activation_type=official.get("activation_type", "swish"),
    )


def config_of(case: Any) -> CosyVoice1LMConfig:
    official = case.info["config"]
    sizes = ("text_token_size", "speech_token_size", "spk_embed_dim", "lsm_weight")
    return CosyVoice1LMConfig(
        **{name: official[name] for name in sizes},
        text_encoder=encoder_config(official["text_encoder"]),
        llm=encoder_config(official["llm"]),
        sampling=SamplingConfig(**official["sampling"]),
    )


def model_of(case: Any) -> TransformerLM:
    model = TransformerLM(config_of(case))
    model.load_state_dict(case.state_dict(), strict=True)
    return model.eval()


def batch_of(case: Any, config: CosyVoice1LMConfig, budget: int | None = None) -> PackedBatch:
    given = case.group("in.")
    examples = [
        Example(
            utterance=str(row),
            text=given["text_token"][row, : given["text_token_len"][row]].numpy(),
            speech=given["speech_token"][row, : given["speech_token_len"][row]].numpy(),
            embedding=given["embedding"][row].numpy(),
        )
        for row in range(len(given["text_token"]))
    ]
    return build_batch(examples, np.zeros(len(examples), dtype=bool), config, budget)


def assert_sequences_close(flat: torch.Tensor, padded: torch.Tensor, lengths: list[int], atol: float) -> None:
    """Compares sequences that lie end to end with rows of a padded tensor."""
    for row, sequence in enumerate(flat[: sum(lengths)].split(lengths)):
        torch.testing.assert_close(sequence, padded[row, : len(sequence)], rtol=0, atol=atol)


@pytest.mark.golden_kind(r"cosyvoice1\.llm\.train")
@pytest.mark.parametrize("budget", [None, 512], ids=["exact", "budget"])
def test_training_step(golden_case: Any, budget: int | None) -> None:
    model = model_of(golden_case)
    batch, expected = batch_of(golden_case, model.config, budget), golden_case.group("out.")

    assert batch.lengths == expected["lm_input_len"].tolist()
    assert_sequences_close(batch.target, expected["lm_target"], batch.lengths, atol=0)
    assert_sequences_close(model.embed(batch), expected["lm_input"], batch.lengths, atol=2e-4)
    assert_sequences_close(model.llm_decoder(model.hidden(batch)), expected["logits"], batch.lengths, atol=2e-4)

    output = model(batch, sequence_logprob=True)
    loss = output.loss_sum / batch.num_targets
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(output.num_correct / batch.num_targets, expected["acc"], rtol=1e-5, atol=0)
    if model.config.lsm_weight == 0:
        torch.testing.assert_close(-output.per_sequence_logprob.sum(), output.loss_sum)

    loss.backward()
    norms = {name: weight.grad.norm() for name, weight in model.named_parameters() if weight.grad is not None}
    wanted = golden_case.group("grad.")
    assert norms.keys() == wanted.keys()
    torch.testing.assert_close(norms, wanted, rtol=1e-3, atol=1e-6)


def prompt_of(case: Any, model: TransformerLM) -> torch.Tensor:
    given = case.group("in.")
    text = torch.cat((given["prompt_text"], given["text"]), dim=1)[0].tolist()
    speaker = given["embedding"][0] if len(given["embedding"]) else None
    return model.prompt(text, given["prompt_speech_token"][0].tolist(), speaker)


@pytest.mark.golden_kind(r"cosyvoice1\.llm\.infer")
@pytest.mark.parametrize("mode", ["argmax", "seeded"])
def test_decode(golden_case: Any, mode: str) -> None:
    """CosyVoice 1 has one stop id, which the official minimum length masks: the tokens are the same."""
    model, call = model_of(golden_case), golden_case.info["call"]
    length = golden_case.tensors["in.text"].size(1)
    sampler = Sampler(model.config.sampling, greedy if mode == "argmax" else multinomial())
    torch.manual_seed(golden_case.info["seed"])
    tokens = decode(
        model,
        prompt_of(golden_case, model),
        sampler,
        min_length=length * call["min_token_text_ratio"],
        max_length=length * call["max_token_text_ratio"],
    )
    assert list(tokens) == golden_case.tensors[f"out.{mode}.tokens"].tolist()


@pytest.mark.golden_kind(r"cosyvoice1\.llm\.infer")
def test_scores_after_each_token(golden_case: Any) -> None:
    model, expected = model_of(golden_case), golden_case.group("out.argmax.")
    with torch.inference_mode():
        proceed = model.begin()
        scores = [proceed(prompt_of(golden_case, model))]
        scores += [proceed(model.embed_speech([token])) for token in expected["tokens"].tolist()]
    found = torch.stack(scores)[: len(expected["logp"])].log_softmax(dim=1)
    torch.testing.assert_close(found, expected["logp"], rtol=0, atol=2e-4)


@pytest.mark.golden_files("keytables/cosyvoice1_llm.json")
def test_keys(golden_file: Path) -> None:
    table = json.loads(golden_file.read_text())
    with torch.device("meta"):
        model = TransformerLM(CosyVoice1LMConfig())
    found = [(name, list(weight.shape)) for name, weight in model.state_dict().items()]
    assert found == [(name, entry["shape"]) for name, entry in table["state_dict"].items()]
    assert sum(weight.numel() for weight in model.parameters()) == table["num_unique_parameters"]


def weight_by_rule(salt: str, name: str, shape: torch.Size) -> torch.Tensor:
    """The rule that the `full_*` cases give in `config.weights_rule`."""
    numbers = np.random.RandomState(zlib.crc32((salt + name).encode())).standard_normal(tuple(shape))
    normal = torch.from_numpy(numbers.astype(np.float32))
    if name.endswith("bias") or "pos_bias_" in name:
        return 0.1 * normal
    if len(shape) == 1:
        return 1 + 0.1 * normal
    return normal / (normal.numel() / shape[0]) ** 0.5


@pytest.mark.slow
@pytest.mark.golden_kind(r"cosyvoice1\.llm\.train\.full")
def test_full_size(golden_case: Any) -> None:
    with torch.device("meta"):
        model = TransformerLM(CosyVoice1LMConfig()).eval()
    model.to_empty(device="cpu")
    batch, expected = batch_of(golden_case, model.config), golden_case.group("out.")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weight_by_rule(golden_case.info["config"]["salt"], name, weight.shape))
        logits = model.llm_decoder(model.hidden(batch))
        output = model(batch)
    assert_sequences_close(logits[:, ::97], expected["logits_every_97th"], batch.lengths, atol=2e-4)
    assert_sequences_close(logits.norm(dim=1), expected["logits_norm"], batch.lengths, atol=2e-3)
    torch.testing.assert_close(output.loss_sum / batch.num_targets, expected["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(output.num_correct / batch.num_targets, expected["acc"], rtol=1e-5, atol=0)
