"""A full disk, a real one: one line with the path and what to do, nothing half, and what was there is unchanged."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from cosyflow import disk, storage
from cosyflow.checkpoint.files import write_file
from cosyflow.cli.main import main
from cosyflow.corpus.importing.target import HEADER as NAMES_HEADER
from cosyflow.errors import DiskError
from cosyflow.standins.corpus import pack_corpus, serve
from cosyflow.standins.onnx_models import write_onnx_models
from tests.unit.disks import DISK_BYTES, fill
from tests.unit.run.world import make_wav

HEADER = NAMES_HEADER.encode()
"""What an import leaves of its table of names when it does not come to its end: the mark that the folder is its own."""
PAGE = 4096
STAGES = ("download", "prepare", "import", "speaker-embedding", "speech-token", "parquet", "merge", "average")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, Path], list[str]]]:
    """The command of a stage that writes into a folder; what it reads lies elsewhere."""
    local = tmp_path_factory.mktemp("inputs")
    write_onnx_models(local, seed=0)
    corpus = local / "LibriTTS" / "dev-clean"
    for number in range(3):
        utterance = corpus / "84" / "121" / f"84_121_{number:06}_000000"
        make_wav(utterance.with_suffix(".wav"), pitch=number + 1, seconds=1.0 + number / 10)
        utterance.with_suffix(".normalized.txt").write_text(f"This is sentence {number}.")
    pack_corpus(local / "LibriTTS", local / "mirror")
    for epoch in range(2):
        (local / "run").mkdir(exist_ok=True)
        torch.save({"w": torch.full((100_000,), float(epoch))}, local / "run" / f"epoch_{epoch}_whole.pt")
        record = f"epoch: {epoch}\nstep: {epoch}\nloss_dict: {{loss: 1.0}}\ntag: CV\n"
        (local / "run" / f"epoch_{epoch}_whole.yaml").write_text(record)

    with serve(local / "mirror") as url:

        def command(stage: str, output: Path) -> list[str]:
            tables = ["--embedding_dir", str(local / "speaker-embedding"), "--token_dir", str(local / "speech-token")]
            kaldi, merged = ["--dir", str(local / "prepare")], ["--train_subsets", "dev", "--dev_subsets", "dev"]
            arguments: dict[str, list[str]] = {
                "download": ["--part", "dev-clean", "--data_url", url, "--output_dir", str(output)],
                "prepare": ["--src_dir", str(corpus), "--des_dir", str(output)],
                "import": [str(corpus), str(output), "--dev_share", "0.4"],
                "speaker-embedding": [*kaldi, "--onnx_path", str(local / "campplus.onnx"), "--output_dir", str(output)],
                "speech-token": [
                    *kaldi, "--onnx_path", str(local / "speech_tokenizer_v2.onnx"), "--output_dir", str(output)
                ],
                "parquet": ["--src_dir", str(local / "prepare"), "--des_dir", str(output / "dev" / "parquet"), *tables],
                "merge": ["--src_dir", str(local / "parquet"), "--des_dir", str(output), *merged],
                "average": ["--dst_model", str(output / "llm.pt"), "--src_path", str(local / "run"), "--num", "2"],
            }  # fmt: skip
            return [stage, *arguments[stage]]

        for stage in ("prepare", "speaker-embedding", "speech-token", "parquet"):
            assert main(command(stage, local / stage)) == 0
        yield command


@pytest.mark.medium
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_line_and_leaves_nothing_half(
    inputs: Callable[[str, Path], list[str]],
    small_disk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    assert main(inputs(stage, tmp_path / "roomy")) == 0
    whole = {name: text.replace(b"/roomy", b"/disk/out") for name, text in files_of(tmp_path / "roomy").items()}
    size = sum(-(-len(content) // PAGE) * PAGE for content in whole.values())
    for left in (0, size // 2 // PAGE * PAGE):
        ballast = fill(small_disk, left)
        capsys.readouterr()
        assert main(inputs(stage, small_disk / "out")) == 1
        expect_one_line(capsys.readouterr().err, stage, small_disk)
        ballast.unlink()
        made = files_of(small_disk / "out") if (small_disk / "out").exists() else {}
        for name, content in made.items():
            assert "/." in f"/{name}" or content in (whole[name], HEADER), name
    assert main(inputs(stage, small_disk / "out")) == 0
    good = files_of(small_disk / "out")
    assert good.keys() == whole.keys()
    fill(small_disk, 0)
    main(inputs(stage, small_disk / "out"))
    assert files_of(small_disk / "out") == good


def expect_one_line(error: str, stage: str, folder: Path) -> None:
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if "error: " in line]
    assert line.startswith(f"cosyflow {stage}: error: {folder}/"), line
    assert "No space left on device; make room there, or take another place" in line


@pytest.mark.medium
def test_what_goes_to_a_store_is_collected_where_there_is_room(
    small_disk: Path, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, b"old")
    for size in (DISK_BYTES + 1, 3 * DISK_BYTES):
        with pytest.raises(DiskError, match=rf"^{small_disk}/: No space left .* TMPDIR\); what goes to {uri} is"):
            storage.write_bytes(uri, b"\1" * size)
    assert storage.read_bytes(uri) == b"old"
    assert list(small_disk.iterdir()) == []


def test_a_checkpoint_that_finds_no_room_names_its_file(small_disk: Path) -> None:
    file = small_disk / "epoch_0_whole.pt"
    for left in (0, PAGE, 10 * PAGE):
        fill(small_disk, left)
        with pytest.raises(DiskError, match=rf"^{file}: No space left on device; make room there"):
            write_file({"w": torch.zeros(100_000)}, str(file))
        assert [each.name for each in small_disk.iterdir()] == ["ballast"]


def test_a_lease_that_finds_no_room_leaves_nothing(small_disk: Path) -> None:
    (small_disk / "folder").mkdir()
    fill(small_disk, 0)
    with pytest.raises(DiskError, match="No space left"):
        storage.create(str(small_disk / "folder" / "lease"), b"me")
    assert not (small_disk / "folder" / "lease").exists()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room there, or take another place"),
        (errno.EDQUOT, "make room there, or take another place"),
        (errno.EROFS, "take a place that can be written"),
        (errno.EACCES, "give the right to it, or take another place"),
        (errno.EIO, "look after the disk, then start again"),
        (errno.ENOTUNIQ, "look after the place, or take another one"),
    ],
)
def test_each_reason_has_what_to_do(number: int, remedy: str) -> None:
    error = disk.explained("/data/file", OSError(number, os.strerror(number)))
    assert str(error) == f"/data/file: {os.strerror(number)}; {remedy}"
