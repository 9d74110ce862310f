"""The decoder against transformers' Qwen2, an independent implementation, with the same random weights."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import Qwen2Config as HuggingFaceConfig
from transformers import Qwen2ForCausalLM

from cosyflow.config.llm import CosyVoice2LMConfig, Qwen2Config
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.pretrained import load_qwen2_folder, read_qwen2_config
from cosyflow.models.llm.qwen2 import SequenceBySequenceAttention
from cosyflow.models.llm.speech_lm import SpeechLM

SIZES = Qwen2Config(
    vocab_size=200,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=2,
    intermediate_size=96,
    rms_norm_eps=1e-5,
)


@pytest.fixture(scope="module")
def oracle():
    torch.manual_seed(0)
    # a large deviation makes attention and rotation matter
    config = HuggingFaceConfig(
        **vars(SIZES), rope_parameters={"rope_type": "default", "rope_theta": 1e6}, initializer_range=0.2
    )
    config.tie_word_embeddings = True
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight), alpha=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def folder(oracle, tmp_path_factory):
    directory = tmp_path_factory.mktemp("qwen2")
    oracle.save_pretrained(directory)
    return directory


@pytest.fixture
def model():
    return SpeechLM(CosyVoice2LMConfig(qwen2=SIZES, speech_token_size=50))


def test_hidden_states_agree(oracle, folder, model):
    load_qwen2_folder(model, folder)
    lengths = [5, 33, 1, 17]
    ids = [torch.randint(200, (length,)) for length in lengths]
    position = torch.cat([torch.arange(length) for length in lengths])
    with torch.no_grad():
        hidden = model.decoder.embed_tokens(torch.cat(ids))
        packed = model.decoder(hidden, position, SequenceBySequenceAttention(lengths))
        for sequence, tokens in zip(torch.split(packed, lengths), ids, strict=True):
            expected = oracle.model(tokens[None]).last_hidden_state[0]
            torch.testing.assert_close(sequence, expected, rtol=1e-4, atol=2e-5)


def test_the_folder_fills_the_decoder_only(oracle, folder, model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    load_qwen2_folder(model, folder)
    after = model.state_dict()

    expected = oracle.state_dict()
    for key, value in after.items():
        inner = key.removeprefix("llm.model.")
        torch.testing.assert_close(value, expected[inner] if inner != key else before[key])


def test_sizes_are_read_from_the_folder(folder):
    assert read_qwen2_config(folder) == SIZES


def test_other_sizes_are_named(folder, model, tmp_path):
    other = SpeechLM(CosyVoice2LMConfig(qwen2=Qwen2Config(vocab_size=200, num_hidden_layers=1), speech_token_size=50))
    with pytest.raises(CosyFlowError, match="hidden_size is 64, the model has 896"):
        load_qwen2_folder(other, folder)
    with pytest.raises(CosyFlowError, match=r"config\.json: cannot be read"):
        load_qwen2_folder(model, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CosyFlowError, match="model_type: 'llama' is not supported"):
        load_qwen2_folder(model, tmp_path)
