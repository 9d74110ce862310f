"""Exported files compute what the model computes, and one that does not gets no name."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

from cosyflow.cli import main
from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.errors import CosyFlowError
from cosyflow.models.checkpoint import save_official
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.release import export
from cosyflow.release.export import ONNX_FILE, TORCHSCRIPT_FILE, NextTokenLogits, export_model

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    small = ["llm.qwen2.num_hidden_layers=2", "llm.qwen2.hidden_size=32", "llm.qwen2.vocab_size=64"]
    return load_config(CONF / "cosyvoice2.tiny.yaml", [*small, "llm.speech_token_size=50"])


@pytest.fixture
def model(recipe: Recipe) -> SpeechLM:
    torch.manual_seed(0)
    return SpeechLM(recipe.llm).eval()


@pytest.fixture
def weights(model: SpeechLM, tmp_path: Path) -> str:
    save_official(model, tmp_path / "llm.pt")
    return str(tmp_path / "llm.pt")


def test_both_files_compute_the_models_logits_at_any_length(
    recipe: Recipe, model: SpeechLM, weights: str, tmp_path: Path
) -> None:
    result = export_model(recipe, "llm", weights, str(tmp_path / "out"))
    assert result.files == [TORCHSCRIPT_FILE, ONNX_FILE]
    assert result.details["largest_difference"] < 1e-5
    scripted = torch.jit.load(str(tmp_path / "out" / TORCHSCRIPT_FILE))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / ONNX_FILE), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        for length in (1, 7, 123):
            embeddings = torch.randn(1, length, 32)
            expected = NextTokenLogits(model)(embeddings)
            assert expected.shape == (1, length, 53)
            torch.testing.assert_close(scripted(embeddings), expected, rtol=0, atol=1e-5)
            (logits,) = session.run(["logits"], {"embeddings": embeddings.numpy()})
            torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-5)


def test_a_position_does_not_see_later_ones(model: SpeechLM) -> None:
    step = NextTokenLogits(model)
    embeddings = torch.randn(1, 9, 32)
    with torch.inference_mode():
        torch.testing.assert_close(step(embeddings)[:, :4], step(embeddings[:, :4]))


def test_a_file_that_computes_something_else_gets_no_name(
    recipe: Recipe, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 0.0)  # no export is exact to the last bit at ten lengths
    with pytest.raises(CosyFlowError, match=r"differs from the model by .* at length"):
        export_model(recipe, "llm", weights, str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.onnx"))


@pytest.mark.parametrize(
    ("model_name", "config", "complaint"),
    [
        ("flow", "cosyvoice2.tiny.yaml", "the flow of cosyvoice2 has no exporter yet"),
        ("llm", "cosyvoice2.tiny.yaml", "does not fit the model"),
    ],
    ids=["flow", "other sizes"],
)
def test_what_cannot_be_exported_is_named(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], model_name: str, config: str, complaint: str
) -> None:
    source = ["--config", str(CONF / config), "--model", model_name, "--checkpoint", weights]
    status = main(["export", *source, "--output_dir", str(tmp_path / "out")])
    errors = capsys.readouterr().err.splitlines()
    assert status == 1
    assert len(errors) == 1
    assert complaint in errors[0]
    assert not (tmp_path / "out").exists()
