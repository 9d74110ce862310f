"""`cosyflow inspect` tells what a checkpoint is and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cosyflow.checkpoint.official import save_official
from cosyflow.cli import main
from cosyflow.config.load import load_config
from cosyflow.models.llm.speech_lm import SpeechLM
from tests.unit.checkpoint.zero_files import write_zero

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "llm.pt"
    save_official(SpeechLM(load_config(CONF / "cosyvoice2.tiny.yaml").llm), path)
    return path


def test_version_part_and_sizes(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint), "--config", str(CONF / "cosyvoice2.tiny.yaml")]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"{checkpoint}: cosyvoice2 llm\n")
    assert "num_hidden_layers 3" in output
    assert "does not fit" not in output


def test_what_does_not_fit(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(checkpoint), "--config", str(CONF / "cosyvoice3.tiny.yaml")]) == 0
    output = capsys.readouterr().out
    assert "does not fit: llm_decoder.weight is [6564, 128], expected [6761, 128]" in output
    assert "does not fit: llm_embedding.weight [2, 128] is not expected" in output


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"], ids=["empty", "junk", "broken zip"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "llm.pt").write_bytes(content)
    assert main(["inspect", str(tmp_path / "llm.pt")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "llm.pt: not a readable checkpoint" in errors[0]


def test_a_file_that_holds_other_things(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weights": [1, 2]}, tmp_path / "llm.pt")
    assert main(["inspect", str(tmp_path / "llm.pt")]) == 1
    assert "weights is a list, a checkpoint holds tensors only" in capsys.readouterr().err


def test_of_a_folder_each_checkpoint_is_told(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a model directory, or a training's folder: states, speakers and settings are no checkpoints."""
    folder = checkpoint.parent
    torch.save({"flow": torch.ones(1)}, folder / "flow.pt")
    for name in ("spk2info.pt", "epoch_0_whole.state.pt", "cosyvoice2.yaml"):
        (folder / name).write_bytes(b"other things")
    assert main(["inspect", str(folder)]) == 0
    told = [line.partition(": ") for line in capsys.readouterr().out.splitlines() if line.startswith(str(folder))]
    assert [(path, what) for path, _, what in told] == [
        (str(folder / "flow.pt"), "unknown version unknown part"),
        (str(checkpoint), "cosyvoice2 llm"),
    ]


def test_the_form_of_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = SpeechLM(load_config(CONF / "cosyvoice2.tiny.yaml").llm).state_dict()
    write_zero(tmp_path / "epoch_0_whole", {key: state[key].clone() for key in state}, stage=3, ranks=2)
    assert main(["inspect", str(tmp_path)]) == 0
    told = "cosyvoice2 llm (a checkpoint of DeepSpeed, epoch_0_whole, float32 weights of ZeRO 3 from 2 ranks)"
    assert told in capsys.readouterr().out
