"""Exported files compute what the model computes, by the official calls, and one that does not gets no name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch

from cosyflow.checkpoint.official import load_official, read_tensors
from cosyflow.cli import main
from cosyflow.config.recipe import Recipe
from cosyflow.errors import CosyFlowError, DiskError
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.release.export import comparison, export_model
from cosyflow.release.export.language_model import Qwen2Step
from cosyflow.training.language_model import build_language_model
from tests.unit.disks import fill

pytestmark = pytest.mark.medium

CONF = Path(__file__).resolve().parents[3] / "conf"
Recipes = dict[str, Recipe]
Weights = Callable[[str, str], str]

ESTIMATOR = "flow.decoder.estimator.fp32.onnx"
FLOW_ENCODER = ["flow.encoder.fp32.zip", "flow.encoder.fp16.zip"]
STEP = ["llm.forward.fp32.zip", "llm.forward.fp32.onnx"]
V1_ENCODERS = [f"llm.{part}.{kind}.zip" for part in ("text_encoder", "llm") for kind in ("fp32", "fp16")]


@pytest.mark.parametrize(
    ("version", "part", "files"),
    [
        ("cosyvoice", "llm", [*V1_ENCODERS, STEP[0]]),
        ("cosyvoice2", "llm", STEP),
        ("cosyvoice3", "llm", STEP),
        ("cosyvoice", "flow", [*FLOW_ENCODER, ESTIMATOR]),
        ("cosyvoice2", "flow", [*FLOW_ENCODER, ESTIMATOR]),
        ("cosyvoice3", "flow", [ESTIMATOR]),
        ("cosyvoice", "hifigan", ["hift.pt"]),
        ("cosyvoice2", "hifigan", ["hift.pt"]),
        ("cosyvoice3", "hifigan", ["hift.pt"]),
    ],
)
def test_every_file_is_written_and_compared(
    recipes: Recipes, weights: Weights, tmp_path: Path, version: str, part: str, files: list[str]
) -> None:
    result = export_model(recipes[version], part, weights(version, part), str(tmp_path))
    assert result.files == files
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    has_half = any("fp16" in name for name in files)
    assert result.details["largest_difference"] < (1e-2 if has_half else 1e-5)


@pytest.mark.medium
@pytest.mark.parametrize(("version", "part"), [("cosyvoice2", "hifigan"), ("cosyvoice2", "llm")])
def test_a_full_disk_is_named_and_leaves_nothing(
    recipes: Recipes, weights: Weights, small_disk: Path, monkeypatch: pytest.MonkeyPatch, version: str, part: str
) -> None:
    path, output = weights(version, part), small_disk / "out"
    fill(small_disk, 16_384)
    with pytest.raises(DiskError, match=rf"^{output}.*: No space left on device; make room there"):
        export_model(recipes[version], part, path, str(output))
    assert not output.exists() or not list(output.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(DiskError, match=rf"^{small_disk}/cosyflow-.*: No space left on device; .* TMPDIR"):
        export_model(recipes[version], part, path, str(output))


def test_the_step_of_a_qwen2_model_at_any_length(recipes: Recipes, weights: Weights, tmp_path: Path) -> None:
    export_model(recipes["cosyvoice2"], "llm", weights("cosyvoice2", "llm"), str(tmp_path))
    model = build_language_model(recipes["cosyvoice2"].llm).eval()
    load_official(model, Path(weights("cosyvoice2", "llm")))
    scripted = torch.jit.load(str(tmp_path / STEP[0]))
    session = onnxruntime.InferenceSession(str(tmp_path / STEP[1]), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        for length in (1, 7, 123):
            embeddings = torch.randn(1, length, 32)
            expected = Qwen2Step(model)(embeddings)
            assert expected.shape == (1, length, 53)
            torch.testing.assert_close(scripted(embeddings), expected, rtol=0, atol=1e-5)
            (logits,) = session.run(["logits"], {"embeddings": embeddings.numpy()})
            torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-5)
        # a position does not see later ones
        torch.testing.assert_close(Qwen2Step(model)(embeddings)[:, :4], Qwen2Step(model)(embeddings[:, :4]))


def test_official_calls_of_the_language_model(recipes: Recipes, weights: Weights, tmp_path: Path) -> None:
    export_model(recipes["cosyvoice"], "llm", weights("cosyvoice", "llm"), str(tmp_path))
    half = torch.jit.load(str(tmp_path / "llm.text_encoder.fp16.zip"))
    text, lengths = torch.randn(2, 9, 64), torch.tensor([9, 4])
    encoded, mask = half(text.half(), lengths, decoding_chunk_size=1, num_decoding_left_chunks=-1)
    assert (encoded.dtype, encoded.shape) == (torch.float16, (2, 9, 128))
    assert mask.squeeze(1).sum(1).tolist() == [9, 4]

    decoder = torch.jit.load(str(tmp_path / "llm.llm.fp32.zip"))
    x = torch.randn(1, 12, 128)
    whole, _ = decoder(x, torch.tensor([12]))
    first, cache, unused = decoder.forward_chunk(x[:, :8], 0, -1)
    assert cache.shape == (2, 4, 8, 64)  # layers, heads, positions, keys and values
    second, cache, _ = decoder.forward_chunk(x[:, 8:], 8, -1, cache, unused)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, rtol=0, atol=1e-5)
    kept = decoder.forward_chunk(x[:, :8], 0, 3)[1]
    torch.testing.assert_close(kept, cache[:, :, 5:8])


def test_official_call_of_the_streaming_flow_encoder(recipes: Recipes, weights: Weights, tmp_path: Path) -> None:
    """The first part of an utterance, its lookahead given as context, has the frames that the whole has."""
    export_model(recipes["cosyvoice2"], "flow", weights("cosyvoice2", "flow"), str(tmp_path))
    encoder = torch.jit.load(str(tmp_path / "flow.encoder.fp32.zip"))
    x = torch.randn(1, 53, 64)
    whole, mask = encoder(x, torch.tensor([53]), streaming=True)
    part, part_mask = encoder(x[:, :50], torch.tensor([50]), context=x[:, 50:], streaming=True)
    assert (mask.shape, part_mask.shape) == ((1, 1, 106), (1, 1, 100))
    torch.testing.assert_close(part, whole[:, :100], rtol=0, atol=1e-5)


def test_the_estimator_runs_in_the_solver(recipes: Recipes, weights: Weights, tmp_path: Path) -> None:
    """The mel is the same when ONNX Runtime estimates the velocity."""
    recipe = recipes["cosyvoice3"]
    export_model(recipe, "flow", weights("cosyvoice3", "flow"), str(tmp_path))
    session = onnxruntime.InferenceSession(str(tmp_path / ESTIMATOR), providers=["CPUExecutionProvider"])
    flow = build_flow(recipe.flow).eval()
    load_official(flow, Path(weights("cosyvoice3", "flow")))
    spoken = (torch.arange(20)[None], torch.arange(10)[None], torch.randn(1, 20, 80), torch.randn(1, 192))
    expected = flow.generate(*spoken)

    class Exported(torch.nn.Module):
        def forward(self, *inputs: torch.Tensor, streaming: bool) -> torch.Tensor:
            names = (each.name for each in session.get_inputs())
            feeds = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
            return torch.from_numpy(session.run(None, feeds)[0])

    flow.decoder.estimator = Exported()
    torch.testing.assert_close(flow.generate(*spoken), expected, rtol=0, atol=1e-4)


def test_the_vocoder_comes_without_discriminators(recipes: Recipes, weights: Weights, tmp_path: Path) -> None:
    recipe = recipes["cosyvoice2"]
    export_model(recipe, "hifigan", weights("cosyvoice2", "hifigan"), str(tmp_path))
    found, trained = read_tensors(tmp_path / "hift.pt"), read_tensors(Path(weights("cosyvoice2", "hifigan")))
    assert found.keys() == HiFTGenerator(recipe.hifigan.generator).state_dict().keys()
    assert all(torch.equal(value, trained[f"generator.{key}"]) for key, value in found.items())
    assert any(key.startswith("discriminator.") for key in trained)


def test_a_file_that_computes_something_else_gets_no_name(
    recipes: Recipes, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(comparison.TOLERANCES, torch.float32, 0.0)  # ONNX Runtime is not exact to the last bit
    with pytest.raises(CosyFlowError, match=r"llm.forward.fp32.onnx: differs from the model by .* at length"):
        export_model(recipes["cosyvoice2"], "llm", weights("cosyvoice2", "llm"), str(tmp_path))
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.parametrize("part", ["llm", "flow", "hifigan"])
def test_weights_of_other_sizes_are_named(
    weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    source = ["--config", str(CONF / "cosyvoice2.tiny.yaml"), "--model", part]
    output = ["--checkpoint", weights("cosyvoice2", part), "--output_dir", str(tmp_path / "out")]
    assert main(["export", *source, *output]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert f"cosyvoice2.{part}.pt: does not fit the model" in error
    assert not (tmp_path / "out").exists()
