"""Bad input ends the commands with status 1 and one line on standard error, and leaves the output folder as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from cosyflow.cli import main

CorpusWriter = Callable[[Mapping[str, Path]], Path]
SoundWriter = Callable[..., Path]
BOTH = ("speaker-embedding", "speech-token")
MODEL = {"speaker-embedding": "campplus.onnx", "speech-token": "speech_tokenizer_v2.onnx"}
GOOD_WORK = {"utt2embedding.pt": b"earlier", "utt2speech_token.pt": b"earlier", "notes": b"mine"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(command: str, capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> str:
    """Runs a command that must fail; returns its line on standard error."""
    out.mkdir(exist_ok=True)
    for name, content in GOOD_WORK.items():
        (out / name).write_bytes(content)
    assert main([command, "--output_dir", str(out), *arguments]) == 1
    assert contents(out) == GOOD_WORK
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize("command", BOTH)
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda wav: wav.write_bytes(b""), "empty file"),
        (lambda wav: wav.write_bytes(wav.read_bytes()[:-1000]), "truncated"),
        (lambda wav: wav.write_text("not audio at all, only words"), "not an audio file"),
        (lambda wav: wav.unlink(), "cannot be opened"),
    ],
    ids=["empty", "truncated", "not_audio", "missing"],
)
def test_unusable_wav(
    corpus: Path,
    models: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    wav = tmp_path / "a_2 x.wav"
    spoil(wav)
    arguments = ["--dir", str(corpus), "--onnx_path", str(models / MODEL[command])]
    line = run(command, capsys, tmp_path / "out", *arguments)
    assert f"1 of 12 utterances (8.3%) cannot be used, the first is a_2: {wav}: {reason}" in line
    assert "max_reject_share" in line
    shutil.rmtree(tmp_path / "out")
    assert main([command, *arguments, "--output-dir", str(tmp_path / "out"), "--max-reject-share", "0.1"]) == 0


def test_over_30_seconds(
    models: Path, tmp_path: Path, sound: SoundWriter, write_corpus: CorpusWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus({"s_1": sound(tmp_path / "long.wav", 0, 30.1, sample_rate=8000)})
    arguments = ["--dir", str(corpus), "--onnx_path", str(models / MODEL["speech-token"])]
    assert "s_1" in (line := run("speech-token", capsys, tmp_path / "out", *arguments))
    assert "30.10 s, the speech tokenizer takes 30 s at most; split it" in line


@pytest.mark.parametrize("command", BOTH)
def test_missing_model(
    corpus: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = tmp_path / "none" / MODEL[command]
    line = run(command, capsys, tmp_path / "out", "--dir", str(corpus), "--onnx_path", str(path))
    assert f"{path}: no such file" in line
    assert "cosyflow stand-ins DIR" in line


@pytest.mark.parametrize("command", BOTH)
def test_other_models_and_other_files(
    corpus: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (other,) = set(MODEL.values()) - {MODEL[command]}
    (tmp_path / "words.onnx").write_text("not a model")
    arguments = ["--dir", str(corpus)] + (["--codebook_size", "6561"] if command == "speech-token" else [])
    line = run(command, capsys, tmp_path / "out", *arguments, "--onnx_path", str(models / other))
    assert f"{other}: not a" in line
    assert "its inputs are" in line
    line = run(command, capsys, tmp_path / "out", *arguments, "--onnx_path", str(tmp_path / "words.onnx"))
    assert "words.onnx: cannot be loaded as an ONNX model" in line


def test_tokens_outside_the_codebook(
    corpus: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(models / MODEL["speech-token"])
    arguments = ["--dir", str(corpus), "--onnx_path"]
    line = run("speech-token", capsys, tmp_path / "out", *arguments, model, "--codebook_size", "50")
    assert "outside the codebook of 50; is this the tokenizer of another version?" in line
    shutil.copy(model, tmp_path / "mine.onnx")
    line = run("speech-token", capsys, tmp_path / "out", *arguments, str(tmp_path / "mine.onnx"))
    assert "give its codebook_size" in line


def test_embeddings_of_another_size(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["x"], ["y"], axes=[1], keepdims=0)],
        "80 numbers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 80])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 80])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "80.onnx")
    line = run(
        "speaker-embedding", capsys, tmp_path / "out", "--dir", str(corpus), "--onnx_path", str(tmp_path / "80.onnx")
    )
    assert "its embeddings have 80 numbers, CosyVoice needs 192" in line


@pytest.mark.parametrize("command", BOTH)
def test_kaldi_files_that_disagree(
    corpus: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (corpus / "utt2spk").write_text("a_0 a\n")
    arguments = ["--dir", str(corpus), "--onnx_path", str(models / MODEL[command])]
    assert "disagree" in run(command, capsys, tmp_path / "out", *arguments)
