"""Checkpoint files: what is written, what is refused, and what a file is recognised as."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from cosyflow.checkpoint.describe import describe
from cosyflow.checkpoint.files import write_file
from cosyflow.checkpoint.official import load_official, read_tensors, save_official
from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, Qwen2Config
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.speech_lm import SpeechLM

QWEN2 = Qwen2Config(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24)


def small_model(config_class=CosyVoice2LMConfig, seed: int = 0) -> SpeechLM:
    torch.manual_seed(seed)
    return SpeechLM(config_class(qwen2=QWEN2, speech_token_size=30))


def test_what_is_written_loads_into_another_model(tmp_path):
    first, second = small_model(seed=1), small_model(seed=2)
    save_official(first, tmp_path / "llm.pt")
    load_official(second, tmp_path / "llm.pt")

    content = torch.load(tmp_path / "llm.pt", weights_only=True)
    assert list(content) == list(first.state_dict())
    torch.testing.assert_close(second.state_dict(), first.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["llm.pt"]
    tables = [content["llm.model.model.embed_tokens.weight"], content["llm.model.lm_head.weight"]]
    assert tables[0].data_ptr() == tables[1].data_ptr()


def test_safetensors_load_too(tmp_path):
    first, second = small_model(seed=1), small_model(seed=2)
    save_file({key: value.clone() for key, value in first.state_dict().items()}, tmp_path / "llm.safetensors")
    load_official(second, tmp_path / "llm.safetensors")

    torch.testing.assert_close(second.state_dict(), first.state_dict())


def test_training_integers_are_dropped(tmp_path):
    write_file({"weight": torch.ones(2), "epoch": 3, "step": 100}, str(tmp_path / "epoch_3_whole.pt"))
    assert list(read_tensors(tmp_path / "epoch_3_whole.pt")) == ["weight"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "llm.pt"
    write_file({"weight": torch.ones(2)}, str(path))
    with pytest.raises(AttributeError):
        write_file({"weight": lambda: None}, str(path))

    assert list(read_tensors(path)) == ["weight"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["llm.pt"]


def refusal(model: nn.Module, path: Path) -> str:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CosyFlowError) as caught:
        load_official(model, path)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    return str(caught.value)


def test_another_version_is_recognised(tmp_path):
    save_official(small_model(CosyVoice3LMConfig), tmp_path / "llm.pt")
    message = refusal(small_model(CosyVoice2LMConfig), tmp_path / "llm.pt")

    assert "llm_embedding.weight [2, 16] is missing" in message
    assert "llm_decoder.weight is [230, 16], expected [33, 16]" in message
    assert "the file seems to be cosyvoice3 llm, the model is cosyvoice2 llm" in message


def test_a_key_too_many_is_refused(tmp_path):
    write_file(small_model().state_dict() | {"surprise": torch.ones(3)}, str(tmp_path / "llm.pt"))
    assert "surprise [3] is not expected" in refusal(small_model(), tmp_path / "llm.pt")


def test_an_untied_text_head_is_refused(tmp_path):
    tensors = dict(small_model().state_dict())
    tensors["llm.model.lm_head.weight"] = tensors["llm.model.lm_head.weight"] + 1
    write_file(tensors, str(tmp_path / "llm.pt"))
    message = refusal(small_model(), tmp_path / "llm.pt")

    assert "llm.model.model.embed_tokens.weight and llm.model.lm_head.weight must be equal" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("llm.pt", None, "no such checkpoint file"),
        ("llm.pt", b"", "not a readable checkpoint"),
        ("llm.pt", b"version https://git-lfs.github.com/spec/v1\n", "not a readable checkpoint"),
        ("llm.pt", b"PK\x03\x04 cut off", "not a readable checkpoint"),
        ("llm.safetensors", b"\x10", "not a readable safetensors file"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert f"{tmp_path / name}: {message}" in refusal(small_model(), tmp_path / name)


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"optimizer": {"lr": 1}}, tmp_path / "llm.pt")
    assert "optimizer is a dict, a checkpoint holds tensors only" in refusal(small_model(), tmp_path / "llm.pt")
    torch.save(torch.ones(2), tmp_path / "llm.pt")
    assert "holds a Tensor" in refusal(small_model(), tmp_path / "llm.pt")


@pytest.mark.parametrize("file_has_old_form", [True, False])
def test_both_forms_of_weight_norm_load(tmp_path, file_has_old_form):
    older, newer = (
        nn.Sequential(nn.utils.weight_norm(nn.Conv1d(2, 3, 4))),
        nn.Sequential(weight_norm(nn.Conv1d(2, 3, 4))),
    )
    source, target = (older, newer) if file_has_old_form else (newer, older)
    save_official(source, tmp_path / "hift.pt")
    load_official(target, tmp_path / "hift.pt")

    signal = torch.randn(1, 2, 9)
    torch.testing.assert_close(target(signal), source(signal))


def test_a_vocoder_is_found_inside_its_training_file(tmp_path):
    vocoder = nn.Linear(2, 3)
    generator = {f"generator.{key}": value + 1 for key, value in vocoder.state_dict().items()}
    write_file(generator | {"discriminator.weight": torch.ones(4)}, str(tmp_path / "hifigan.pt"))
    load_official(vocoder, tmp_path / "hifigan.pt")

    torch.testing.assert_close(vocoder.weight, generator["generator.weight"])


def test_description(tmp_path):
    save_official(small_model(CosyVoice3LMConfig), tmp_path / "llm.pt")
    with torch.device("meta"):
        other = small_model(CosyVoice2LMConfig)
    description = describe(tmp_path / "llm.pt", other)

    assert str(description.identity) == "cosyvoice3 llm"
    assert description.sizes == {"vocab_size": 60, "speech_ids": 230, "num_hidden_layers": 2, "hidden_size": 16}
    assert description.num_parameters == sum(weight.numel() for weight in small_model(CosyVoice3LMConfig).parameters())
    assert description.lines()[1] == "sizes: vocab_size 60, speech_ids 230, num_hidden_layers 2, hidden_size 16"
    assert "does not fit: llm_embedding.weight [2, 16] is missing" in description.lines()
    assert describe(tmp_path / "llm.pt", small_model(CosyVoice3LMConfig)).problems == []
