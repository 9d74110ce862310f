"""Decoding stays inside what training taught: the same layout, no special token where speech is due."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, Qwen2Config, SamplingConfig
from cosyflow.models.llm.batch import IGNORE, Example
from cosyflow.models.llm.decoding import Sampler, decode, decode_stream, greedy, multinomial
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.speech_lm import SpeechLM

SPEECH_IDS = 50
TEXT = list(range(17))
PLAIN = SamplingConfig(win_size=0)


@pytest.fixture(params=[CosyVoice2LMConfig, CosyVoice3LMConfig], ids=["v2", "v3"])
def model(request) -> SpeechLM:
    torch.manual_seed(0)
    sizes = Qwen2Config(vocab_size=90, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)
    model = SpeechLM(request.param(qwen2=sizes, speech_token_size=SPEECH_IDS)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5)
        # fill tokens come only where the layout wants them
        model.llm_decoder.weight[model.layout.fill] = 0
    return model


def trained_scores(model, tokens, bistream):
    """What a training batch of text and these tokens predicts at each speech token, in order."""
    instruct = np.array([88, 89]) if model.layout.takes_instruct else None
    example = Example("utterance", np.array(TEXT), np.array(tokens), instruct)
    batch = build_batch([example], np.array([bistream]), model.config)
    with torch.no_grad():
        logits = model.llm_decoder(model.hidden(batch))
    predicts_speech = (batch.target != IGNORE) & (batch.target < SPEECH_IDS)
    return logits[predicts_speech][:, :SPEECH_IDS]


def test_streaming_sees_the_training_layout(model):
    instruct = [88, 89] if model.layout.takes_instruct else []
    pieces = [TEXT[:2], TEXT[2:3], TEXT[3:11], [], TEXT[11:]]
    stream = decode_stream(model, pieces, Sampler(PLAIN, greedy), max_length=70, instruct=instruct)
    tokens = list(stream)

    assert len(tokens) > 51
    assert trained_scores(model, tokens, bistream=True).argmax(dim=-1).tolist() == tokens


def test_known_text_sees_the_training_layout(model):
    text = ([88, 89] if model.layout.takes_instruct else []) + TEXT
    tokens = list(decode(model, model.prompt(text), Sampler(PLAIN, greedy), min_length=40, max_length=40))

    assert trained_scores(model, tokens, bistream=False).argmax(dim=-1).tolist() == tokens


class WantsToEnd:
    """A model that prefers every special id to any speech."""

    def __init__(self, layout):
        self.layout = layout

    def begin(self):
        scores = torch.zeros(self.layout.output_ids)
        scores[self.layout.speech_ids :] = 9.0
        return lambda embedded: scores.clone()

    def embed_speech(self, ids):
        return torch.zeros(len(ids), 4)


@pytest.mark.parametrize("min_length", [0, 7])
def test_no_end_before_the_minimum_length(model, min_length):
    """Deviation "minimum length"."""
    decodable = WantsToEnd(model.layout)
    tokens = list(
        decode(
            decodable,
            torch.zeros(3, 4),
            Sampler(PLAIN, multinomial(torch.Generator().manual_seed(0))),
            min_length,
            max_length=30,
        )
    )

    assert len(tokens) == min_length
    assert all(token < SPEECH_IDS for token in tokens)


def test_nucleus_and_top_k():
    scores = torch.tensor([0.5, 0.3, 0.1, 0.06, 0.04]).log()

    def candidates(**settings):
        sizes = []
        Sampler(SamplingConfig(win_size=0, **settings), lambda weights: sizes.append(len(weights)) or 0)(scores, [])
        return sizes

    assert candidates(top_p=0.79) == [2]
    assert candidates(top_p=0.81) == [3]
    assert candidates(top_p=1.0, top_k=4) == [4]
    assert candidates(top_p=0.1) == [1]


def test_a_repeated_token_is_replaced():
    scores = torch.tensor([0.9, 0.06, 0.04]).log()
    sampler = Sampler(SamplingConfig(win_size=10, tau_r=0.2), greedy)

    assert sampler(scores, [0]) == 0
    assert sampler(scores, [0, 0]) == 1
    assert sampler(scores, [0, 0] + [1] * 9) == 0
