"""Component download: uses a folder in place, hands on what is there, names what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kfp import dsl, local

from components import download
from components.conftest import OUTSIDE, Finish, read_output
from cosyflow.errors import CosyFlowError

EVERYTHING = {"start_stage": -1, "stop_stage": 7}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    chapter = tmp_path / "corpus" / "dev-clean" / "84" / "121123"
    chapter.mkdir(parents=True)
    (chapter / "84_121123_000001_000000.wav").write_bytes(b"RIFF")
    return tmp_path / "corpus"


def test_a_folder_is_used_in_place(data_root: Path, corpus: Path, outputs: dict[str, dsl.Artifact]) -> None:
    arguments = {"subset": "dev-clean", "recipe": "cosyvoice2", "data_root": str(data_root), "data_url": str(corpus)}
    download.python_func(**arguments, **EVERYTHING, **outputs)
    manifest = read_output(outputs)
    assert manifest.details["source"] == str(corpus / "dev-clean")
    assert manifest.counts == {"files": 1, "bytes": 4}
    assert outputs["manifest"].metadata["name"] == "dev-clean"
    assert outputs["metrics"].metadata["files"] == 1


def test_a_changed_folder_is_another_input(data_root: Path, corpus: Path, outputs: dict[str, dsl.Artifact]) -> None:
    arguments = {"subset": "dev-clean", "recipe": "cosyvoice2", "data_root": str(data_root), "data_url": str(corpus)}
    digests = set()
    for name in ("1", "2"):
        (corpus / "dev-clean" / f"{name}.wav").write_bytes(b"RIFF")
        download.python_func(**arguments, **EVERYTHING, **outputs)
        digests.add(read_output(outputs).digest)
    assert len(digests) == 2


def test_a_subset_that_is_not_there_is_named(data_root: Path, corpus: Path, outputs: dict[str, dsl.Artifact]) -> None:
    arguments = {"subset": "dev-other", "recipe": "cosyvoice2", "data_root": str(data_root), "data_url": str(corpus)}
    with pytest.raises(CosyFlowError, match=f"{corpus}/dev-other: no such folder"):
        download.python_func(**arguments, **EVERYTHING, **outputs)


def test_hands_on(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    finish("download", "dev-clean")
    arguments = {"subset": "dev-clean", "recipe": "cosyvoice2", "data_root": str(data_root), "data_url": ""}
    download.python_func(**arguments, **OUTSIDE, **outputs)
    assert read_output(outputs).reused


def test_runs_under_the_local_runner(tmp_path: Path, data_root: Path, corpus: Path) -> None:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "kfp"))
    arguments = {"subset": "dev-clean", "recipe": "cosyvoice2", "data_root": str(data_root), "data_url": str(corpus)}
    made = download(**arguments, **EVERYTHING).outputs["manifest"]
    assert json.loads(Path(made.path).read_text())["stage"] == "download"
    assert made.metadata["name"] == "dev-clean"
