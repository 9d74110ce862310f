"""CUDA that was asked for is used or its absence is told; `auto` says why it computes on the CPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch

from cosyflow.cli.main import main
from cosyflow.errors import CosyFlowError
from cosyflow.extract.device import PROVIDER, VARIABLE, why_no_cuda
from cosyflow.extract.model import SPEAKER, ModelFile, OnnxModel
from tests.unit.extract.conftest import CorpusWriter, SoundWriter

WHY_NOT = why_no_cuda()

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@pytest.fixture
def words(models: Path, sound: SoundWriter, write_corpus: CorpusWriter, tmp_path: Path) -> Callable[..., list[str]]:
    """The words of the command for a corpus of one utterance."""
    corpus = write_corpus({"s_1": sound(tmp_path / "a.wav", seed=1, seconds=1.0)})
    common = ["speaker-embedding", "--dir", str(corpus), "--onnx_path", str(models / "campplus.onnx")]
    return lambda *more: [*common, "--output_dir", str(tmp_path / "out"), *more]


def test_the_reason_is_that_of_this_machine() -> None:
    assert PROVIDER in onnxruntime.get_available_providers(), "onnxruntime-gpu is installed"
    assert re.match("Found no NVIDIA driver|No CUDA GPUs are available|Torch not compiled with CUDA", WHY_NOT)


@pytest.mark.parametrize("how", ["option", "environment"])
def test_cuda_that_was_asked_for_and_is_not_there_fails_with_the_reason(
    how: str,
    words: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if how == "environment":
        monkeypatch.setenv(VARIABLE, "cuda")
    assert main(words(*(["--device", "cuda"] if how == "option" else []))) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"campplus.onnx: cuda was asked for (--device, {VARIABLE}, or the run's device), and {WHY_NOT}" in line
    assert not list((tmp_path / "out").rglob("utt2embedding.pt"))


def test_auto_computes_on_the_cpu_and_says_why(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words()) == 0
    assert f"campplus.onnx on CPU (no CUDA: {WHY_NOT}), " in capsys.readouterr().out
    assert (tmp_path / "out" / "utt2embedding.pt").exists()


def test_an_option_wins_over_the_environment(
    words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "cuda")
    assert main(words("--device", "cpu")) == 0
    assert "campplus.onnx on CPU, " in capsys.readouterr().out


def test_a_device_that_is_none_is_named(
    words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "gpu")
    assert main(words()) == 1
    assert f"{VARIABLE}: gpu is no device; give one of auto, cpu, cuda" in capsys.readouterr().err


def test_a_session_that_left_cuda_out_is_noticed(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a device where a library is missing: ONNX Runtime itself goes on without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    path = str(models / "campplus.onnx")
    with pytest.raises(CosyFlowError, match=r"campplus\.onnx: cuda was asked for .*, and .*; correct it"):
        OnnxModel.load(ModelFile(path, path, "cuda"), SPEAKER)
    model = OnnxModel.load(ModelFile(path, path), SPEAKER)
    assert model.provider == "CPU"
    assert model.why_no_cuda


def test_an_onnxruntime_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert why_no_cuda() == f"onnxruntime {onnxruntime.__version__} has no CUDA provider; onnxruntime-gpu has one"
