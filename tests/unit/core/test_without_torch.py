"""What computes with no model does not import PyTorch, which takes seconds and hundreds of megabytes each time."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from cosyflow.standins.server import serve
from tests.unit.packages import CHECKOUT, MAIN, ends_without_torch, runs_without_torch

UTTERANCE = "84_1_000001_000000"
GRAPH = """
import json, sys
from pathlib import Path
from cosyflow.run.entry import begin, write_report

settings = json.loads(sys.argv[1])
begin("", settings)
write_report("", settings["data_root"], "run-1", "SUCCEEDED", "", str(Path(settings["data_root"]).parent / "page.md"))
status = 0
"""
cosyflow = partial(runs_without_torch, "cosyflow.cli.main")
pipelines = partial(runs_without_torch, "pipelines.commands")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LibriTTS tree with one utterance in each of two subsets."""
    root = tmp_path_factory.mktemp("speech")
    for subset in ("dev-clean", "dev-other"):
        chapter = root / "LibriTTS" / subset / "84" / "1"
        chapter.mkdir(parents=True)
        soundfile.write(chapter / f"{UTTERANCE}.wav", 0.1 * np.sin(np.arange(12_000) / 20), 24_000, subtype="PCM_16")
        (chapter / f"{UTTERANCE}.normalized.txt").write_text("One sentence.\n")
    return root


@pytest.fixture(scope="module")
def mirror(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of a server that has the tree as an archive, and the archive's digest."""
    folder = tmp_path_factory.mktemp("mirror")
    with tarfile.open(folder / "dev-clean.tar.gz", "w:gz") as archive:
        archive.add(speech / "LibriTTS" / "dev-clean", "LibriTTS/dev-clean")
    with serve(folder) as url:
        yield url, hashlib.sha256((folder / "dev-clean.tar.gz").read_bytes()).hexdigest()


@pytest.fixture
def run(speech: Path, tmp_path: Path) -> Mapping[str, Any]:
    """Settings of a whole run of that speech, whose models need only be there."""
    models = ["campplus.onnx", "speech_tokenizer_v2.onnx"]
    models += [f"CosyVoice-BlankEN/{name}" for name in ("config.json", "vocab.json", "merges.txt", "model.safetensors")]
    for name in models:
        (tmp_path / "pretrained" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pretrained" / name).write_text("{}")
    return {
        "data_root": str(tmp_path / "data"),
        "data_url": str(speech / "LibriTTS"),
        "pretrained_dir": str(tmp_path / "pretrained"),
        "train_subsets": ["dev-clean"],
        "dev_subsets": ["dev-other"],
        "test_subsets": ["none"],
        "launcher": "local",
        "mlflow_uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }


def test_download(mirror: tuple[str, str], tmp_path: Path) -> None:
    url, digest = mirror
    runs_without_torch(
        "cosyflow.cli.main",
        "download",
        "--part",
        "dev-clean",
        "--data_url",
        url,
        "--output_dir",
        tmp_path,
        "--checksum",
        digest,
    )
    assert (tmp_path / "LibriTTS" / "dev-clean" / "84" / "1" / f"{UTTERANCE}.wav").exists()


def test_prepare(speech: Path, tmp_path: Path) -> None:
    cosyflow("prepare", "--src_dir", speech / "LibriTTS" / "dev-clean", "--des_dir", tmp_path)
    assert (tmp_path / "wav.scp").read_text().startswith(UTTERANCE)


def test_merge(tmp_path: Path) -> None:
    for subset in ("one", "two"):
        folder = tmp_path / subset / "parquet"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"utt": [UTTERANCE]}), folder / "shard.parquet")
        (folder / "data.list").write_text(f"{folder / 'shard.parquet'}\n")
    lists = ["--train_subsets", "one", "--dev_subsets", "two"]
    cosyflow("merge", "--src_dir", tmp_path, "--des_dir", tmp_path / "lists", *lists)
    assert (tmp_path / "lists" / "dev.data.list").read_text().strip().endswith("two/parquet/shard.parquet")


@pytest.mark.medium
def test_a_training_that_is_refused(tmp_path: Path) -> None:
    """As of any training, the process that starts the others and follows them computes nothing itself."""
    absent = tmp_path / "absent"
    words = ["--train_data", absent, "--cv_data", absent, "--model_dir", tmp_path / "model"]
    recipe = CHECKOUT / "conf" / "cosyvoice2.tiny.yaml"
    ends_without_torch(MAIN.format(module="cosyflow.cli.main"), ["train", "--config", str(recipe), *map(str, words)], 2)


@pytest.mark.medium
def test_the_first_and_the_last_task_of_a_graph(run: Mapping[str, Any], tmp_path: Path) -> None:
    ends_without_torch(GRAPH, run)
    assert "SUCCEEDED" in (tmp_path / "page.md").read_text()


@pytest.mark.medium
@pytest.mark.parametrize("command", ["check", "show", "keys"])
def test_what_is_asked_before_a_run(command: str, run: Mapping[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    pipelines(command, "--run", tmp_path / "run.yaml")


@pytest.mark.medium
def test_compile(tmp_path: Path) -> None:
    pipelines("compile", "--output", tmp_path)
    assert (tmp_path / "cosyvoice.yaml").exists()
