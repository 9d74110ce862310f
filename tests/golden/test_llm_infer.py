"""Decoding against the official code: the same scores at each step, the same tokens, and where ours must differ."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, Qwen2Config, SamplingConfig
from cosyflow.models.llm.decoding import Sampler, decode, decode_stream, greedy, multinomial
from cosyflow.models.llm.speech_lm import SpeechLM

CONFIGS = {"cosyvoice2": CosyVoice2LMConfig, "cosyvoice3": CosyVoice3LMConfig}
ENDLESS = 401
"""The cases stop decoding from arriving text after so many tokens."""


def model_of(case) -> SpeechLM:
    values = case.info["config"]
    model = SpeechLM(
        CONFIGS[case.info["kind"].split(".")[0]](
            qwen2=Qwen2Config.from_huggingface(values["qwen2_config"]),
            speech_token_size=values["speech_token_size"],
            mix_ratio=tuple(values["mix_ratio"]),
            sampling=SamplingConfig(**values["sampling"]),
        )
    )
    model.load_state_dict(case.state_dict())
    return model.eval()


def inputs_of(case) -> tuple[list[int], list[int], list[int]]:
    """Text, prompt text and prompt speech."""
    names = ("text", "prompt_text", "prompt_speech_token")
    return tuple(case.tensors[f"in.{name}"].flatten().tolist() for name in names)


@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.infer")
@pytest.mark.parametrize("mode", ["argmax", "seeded"])
def test_scores_after_the_official_tokens(golden_case, mode):
    model = model_of(golden_case)
    text, prompt_text, prompt_speech = inputs_of(golden_case)
    out = golden_case.group(f"out.{mode}.")
    with torch.inference_mode():
        proceed = model.begin()
        scores = [proceed(model.prompt(prompt_text + text, prompt_speech))]
        scores += [proceed(model.embed_speech([token])) for token in out["tokens"].tolist()]

    scores = torch.stack(scores)[: len(out["logp"])].log_softmax(dim=-1)
    torch.testing.assert_close(scores, out["logp"], rtol=0, atol=2e-4)


@pytest.mark.golden_kind(r"cosyvoice[123]\.llm\.infer")
@pytest.mark.parametrize("mode", ["argmax", "seeded"])
def test_draws_from_the_official_scores(golden_case, mode):
    """The official code masks one id below the minimum length; the sampler then draws what it drew."""
    values = golden_case.info["config"]
    out = golden_case.group(f"out.{mode}.")
    sampler = Sampler(SamplingConfig(**values["sampling"]), greedy if mode == "argmax" else multinomial())
    torch.manual_seed(golden_case.info["seed"])
    tokens: list[int] = []
    for scores, too_short in zip(out["logp"].clone(), out["ignore_eos"], strict=True):
        if too_short:
            scores[values["speech_token_size"]] = -torch.inf
        tokens.append(sampler(scores, tokens))

    expected = out["tokens"].tolist()
    assert tokens[: len(expected)] == expected
    assert all(token >= values["speech_token_size"] for token in tokens[len(expected) :])


@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.infer")
def test_greedy_tokens_and_the_minimum_length(golden_case):
    """Deviation "minimum length": the official code may stop earlier, ours goes on from there."""
    model, call = model_of(golden_case), golden_case.info["call"]
    text, prompt_text, prompt_speech = inputs_of(golden_case)
    official = golden_case.tensors["out.argmax.tokens"].tolist()
    min_length = call["min_token_text_ratio"] * len(text)
    max_length = call["max_token_text_ratio"] * len(text)
    sampler = Sampler(model.config.sampling, greedy)
    tokens = list(decode(model, model.prompt(prompt_text + text, prompt_speech), sampler, min_length, max_length))

    assert tokens[: len(official)] == official
    assert len(tokens) >= min_length
    if len(official) >= min_length:
        assert tokens == official


@dataclass
class ReadsTheLastTokenTwice:
    """The official code, when no more text comes after a block, reads the block's last token once more."""

    model: SpeechLM
    last: torch.Tensor | None = None

    def __getattr__(self, name):
        return getattr(self.model, name)

    def embed_speech(self, ids):
        self.last = self.model.embed_speech(ids)
        return self.last

    def begin(self):
        proceed = self.model.begin()
        task = self.model.embed_special(self.model.layout.task)

        def faulty(embedded):
            text_ends = torch.equal(embedded[-1:], task) and self.last is not None
            return proceed(torch.cat([self.last, embedded]) if text_ends else embedded)

        return faulty


@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.infer_bistream")
def test_greedy_tokens_from_arriving_text(golden_case):
    """Deviation "last token of a block": ours is the official code until the text ends; after that, with its fault."""
    model = model_of(golden_case)
    text, prompt_text, prompt_speech = inputs_of(golden_case)
    sampler = Sampler(model.config.sampling, greedy)
    official = golden_case.tensors["out.tokens"].tolist()

    def tokens_of(decodable):
        """The tokens, and how many there were when the text ended."""
        tokens, while_text = [], []

        def pieces():
            yield from ([token] for token in text)
            while_text.append(len(tokens))

        prompts = {"prompt_text": prompt_text, "prompt_speech": prompt_speech}
        for token in decode_stream(decodable, pieces(), sampler, ENDLESS, **prompts):
            tokens.append(token)
        return tokens, while_text[0]

    with_fault, _ = tokens_of(ReadsTheLastTokenTwice(model))
    assert with_fault == official
    ours, while_text = tokens_of(model)
    assert while_text > 0
    assert ours[:while_text] == official[:while_text]
