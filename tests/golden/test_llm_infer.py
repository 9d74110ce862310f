"""Decoding against the official code: the same scores at each step, the same tokens, and where ours must differ."""

from __future__ import annotations

from itertools import islice

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


def official_stream(model: SpeechLM, pieces, prompt_text, prompt_speech):
    """Decodes greedily from arriving text as the official code does, with its two faults.

    Where the prompt's speech fills whole blocks, it speaks a block more without new text; and when no more text comes,
    it reads the last token of the last block once more.
    """
    layout, sampler = model.layout, Sampler(model.config.sampling, greedy)
    text_part, speech_part = layout.mix_ratio
    waiting, prompt, history = list(prompt_text), list(prompt_speech), []
    fill_at = speech_part - len(prompt) % speech_part
    proceed, unread = model.begin(), [model.embed_special(layout.sos)]
    for piece in pieces:
        waiting += piece
        while prompt and len(waiting) >= text_part:
            unread += [model.embed_text(waiting[:text_part]), model.embed_speech(prompt[:speech_part])]
            del waiting[:text_part], prompt[:speech_part]
        needs_text = history[-1] == layout.fill if history else len(unread) == 1
        if prompt or (needs_text and len(waiting) < text_part):
            continue
        if needs_text:
            unread = [*([] if history else unread), model.embed_text(waiting[:text_part])]
            del waiting[:text_part]
        while True:
            scores = proceed(torch.cat(unread)).log_softmax(dim=-1)
            scores[layout.speech_ids] = -torch.inf
            history.append(layout.fill if len(history) == fill_at else sampler(scores, history))
            if history[-1] == layout.fill:
                fill_at = len(history) + speech_part
                break
            yield history[-1]
            unread = [model.embed_speech(history[-1:])]
    unread += ([model.embed_text(waiting)] if waiting else []) + [model.embed_special(layout.task)]
    while True:
        history.append(sampler(proceed(torch.cat(unread)).log_softmax(dim=-1), history))
        if history[-1] == layout.end:
            return
        yield history[-1]
        unread = [model.embed_speech(history[-1:])]


def spoken(stream, text):
    """The tokens of a stream that is given the text token by token, and how much text it took before each."""
    taken = []

    def pieces():
        for token in text:
            taken.append(token)
            yield [token]

    tokens, needed = [], []
    with torch.inference_mode():
        for token in islice(stream(pieces()), ENDLESS):
            tokens.append(token)
            needed.append(len(taken))
    return tokens, needed


def ours_and_official(model, text, prompt_text, prompt_speech):
    sampler, prompts = (
        Sampler(model.config.sampling, greedy),
        {"prompt_text": prompt_text, "prompt_speech": prompt_speech},
    )
    ours = spoken(lambda pieces: decode_stream(model, pieces, sampler, ENDLESS, **prompts), text)
    return ours, spoken(lambda pieces: official_stream(model, pieces, prompt_text, prompt_speech), text)


@pytest.mark.medium
@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.infer_bistream")
def test_greedy_tokens_from_arriving_text(golden_case):
    """Deviations "last token of a block" and "whole blocks of a prompt": with both faults ours is the official code.

    Without them it is the same until the text ends, unless the prompt fills whole blocks, where ours waits for text.
    """
    model = model_of(golden_case)
    text, prompt_text, prompt_speech = inputs_of(golden_case)
    (ours, needed), (with_faults, _) = ours_and_official(model, text, prompt_text, prompt_speech)
    official = golden_case.tensors["out.tokens"].tolist()
    assert with_faults == official
    if not prompt_speech or len(prompt_speech) % model.layout.mix_ratio[1]:
        while_text = sum(count < len(text) for count in needed)
        assert while_text > 0
        assert ours[:while_text] == official[:while_text]
    else:
        check_waits(model, needed, prompt_text, prompt_speech)


@pytest.mark.medium
@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.golden_kind(r"cosyvoice[23]\.llm\.infer_bistream")
def test_after_whole_blocks_of_a_prompt_ours_waits_for_text(golden_case, blocks):
    """Deviation "whole blocks of a prompt": the official code speaks before the text of the next block is there."""
    model = model_of(golden_case)
    text, prompt_text, _ = inputs_of(golden_case)
    text_part, speech_part = model.layout.mix_ratio
    prompt_speech = [number % model.layout.speech_ids for number in range(speech_part * blocks)]
    (_, needed), (_, official) = ours_and_official(model, text, prompt_text, prompt_speech)
    assert len(prompt_text) + official[0] == max(blocks * text_part, len(prompt_text) + 1)
    check_waits(model, needed, prompt_text, prompt_speech)


def check_waits(model, needed, prompt_text, prompt_speech):
    """The first new token comes when the text of the block behind the prompt is there."""
    text_part, speech_part = model.layout.mix_ratio
    assert len(prompt_text) + needed[0] >= (len(prompt_speech) // speech_part + 1) * text_part
