"""What a plan looks at before any work: files, folders, servers, the data root, and what an earlier run has made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from cosyflow import storage
from cosyflow.extract.device import why_no_cuda
from cosyflow.launch import processes
from cosyflow.run import plan
from cosyflow.run.config import default_of
from tests.unit.run.closures import CHECKOUT
from tests.unit.run.world import Refused, World, finish

Refuse = Callable[..., Refused]
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture
def server() -> Iterator[str]:
    """Has the archive of the subset `there`; its registry is out of order."""

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200 if self.path == "/60/there.tar.gz" else 404)
            self.send_header("Content-Length", "1000")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("campplus.onnx", {}),
        ("speech_tokenizer_v1.onnx", {"recipe": "cosyvoice.tiny"}),
        ("speech_tokenizer_v2.onnx", {}),
        ("speech_tokenizer_v3.onnx", {"recipe": "cosyvoice3.tiny"}),
        ("multilingual.tiktoken", {"recipe": "cosyvoice.tiny"}),
        ("CosyVoice-BlankEN", {}),
        ("CosyVoice-BlankEN", {"recipe": "cosyvoice3.tiny"}),
    ],
)
def test_a_missing_pretrained_file_is_named(world: World, refused: Refuse, file: str, changed: dict[str, Any]) -> None:
    (world.pretrained / file).rename(world.folder / "taken-away")
    (line,) = refused(**changed).lines
    assert line.startswith(f"error: pretrained_dir: {world.pretrained}/{file}: no such file; copy ")


def test_an_empty_subset_is_refused(world: World, refused: Refuse) -> None:
    (world.speech / "empty").mkdir()
    assert "empty: nothing in it" in refused(dev_subsets=["empty"]).problems["dev_subsets"][0]


def test_an_archive_that_is_not_there_is_refused(world: World, refused: Refuse, server: str) -> None:
    chosen = {"data_url": f"{server}/60", "train_subsets": ["there"], "dev_subsets": ["gone"]}
    found = refused(**chosen)
    assert found.lines == [f"error: dev_subsets: {server}/60/gone.tar.gz: no such archive; name others"]


def test_a_registry_that_is_out_of_order_is_refused(refused: Refuse, server: str) -> None:
    assert "answers with status 500" in refused(mlflow_uri=server).problems["mlflow_uri"][0]


@pytest.mark.slow
def test_a_store_that_cannot_be_reached_is_refused_soon(refused: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    """And data in a store need a registry, which on this machine is a file beside the data root."""
    monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", UNREACHABLE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    start = time.monotonic()
    found = refused(data_root="s3://bucket/data", pretrained_dir="s3://bucket/models")
    assert time.monotonic() - start < 60  # 7 on a machine of its own; work would wait for minutes
    assert "s3://bucket/data" in found.problems["data_root"][0]
    assert "s3://bucket/models" in found.problems["pretrained_dir"][0]
    assert "no model registry" in found.problems["mlflow_uri"][0]


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_a_data_root_that_is_a_file_is_refused(world: World, refused: Refuse, place: str) -> None:
    (world.folder / "file").write_text("in the way")
    found = refused(data_root=str(world.folder / place), mlflow_uri=f"sqlite:///{world.folder}/mlflow.db")
    assert f"{world.folder}/file is a file; name a folder" in found.problems["data_root"][0]


@pytest.mark.skipif(not Path("/proc/sys").is_dir(), reason="needs a folder that not even root can write to")
def test_a_data_root_that_cannot_be_written_is_refused(world: World, refused: Refuse) -> None:
    found = refused(data_root="/proc/sys/data", mlflow_uri=f"sqlite:///{world.folder}/mlflow.db")
    assert "cannot be written" in found.problems["data_root"][0]


def test_a_file_of_a_job_is_read(world: World, refused: Refuse) -> None:
    job = world.folder / "job.yaml"
    for text, said in (
        ("image: [", "not YAML"),
        ("imago: x", "imago: Unexpected keyword"),
        ("- image", "job.yaml"),
        ("ttl_seconds: soon", "ttl_seconds: Input should be a valid integer"),
    ):
        job.write_text(text)
        found = refused(job=str(job))
        assert found.settings == ["job"]
        assert said in found.problems["job"][0]
        assert not found.problems["job"][0].startswith("job:")
    job.write_text("imago: x\nttl_seconds: soon")
    assert len(refused(job=str(job)).lines) == 2


def test_more_gpus_than_there_are_are_refused(refused: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "devices_here", lambda: 2)
    assert "4, this machine has 2" in refused(gpus_per_node=4).problems["gpus_per_node"][0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_this_machine_has_not_is_refused(refused: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"cuda is asked for, and {why_no_cuda()}; correct that" in refused(device="cuda").problems["device"][0]
    monkeypatch.setenv("COSYFLOW_DEVICE", "cuda")
    assert "cuda is asked for (by COSYFLOW_DEVICE), and" in refused().problems["device"][0]
    assert "device" not in refused(device="cpu", num_nodes=0).problems


@pytest.mark.parametrize(
    ("text", "setting", "said"),
    [
        ("model: [\n", "run", "not YAML"),
        ("- model\n- llm\n", "run", "not a mapping of settings"),
        ("/nowhere/run.yaml", "run", "/nowhere/run.yaml"),
        ("modell: llm\n", "modell", "no such setting; did you mean model"),
        ("num_workers: many\n", "num_workers", '"many" is not a whole number'),
        ("num_workers: 1.5\n", "num_workers", "1.5 is not a whole number"),
        ("num_workers: .inf\n", "num_workers", "is not a whole number"),
        ("num_workers: .nan\n", "num_workers", "is not a whole number"),
        ("num_workers: true\n", "num_workers", "true is not a whole number"),
        ("max_reject_share: {}\n", "max_reject_share", "is not a number"),
        ("val_best: 3\n", "val_best", "3 is not true or false"),
        ("instruct: 3\n", "instruct", "3 is not a text"),
        ("overrides: 3\n", "overrides", "3 is not a list of texts"),
        ("train_subsets: [1]\n", "train_subsets", "is not a list of texts"),
        ("data_root: [a]\n", "data_root", "is not a text"),
        ("resources: 3\n", "resources", "is not a mapping of stages"),
        ("resources: {train: 3}\n", "resources", "train: is not a mapping"),
        ("resources: {train: {cpu_limit: [3]}}\n", "resources", "train: is not a mapping"),
        ("subsets_at_once: 0\n", "subsets_at_once", "0 is less than 1"),
    ],
)
def test_a_runs_file_is_read(world: World, refused: Refuse, text: str, setting: str, said: str) -> None:
    """As YAML text, as a file or s3:// object; parameters that have their default say nothing."""
    extra = {setting: default_of(setting)} if setting in world.settings else {}
    found = refused(text, **extra)
    assert setting in found.settings
    assert any(said in problem for problem in found.problems[setting]), found.lines
    if text.endswith("\n"):
        (world.folder / "run.yaml").write_text(text)
        assert refused(str(world.folder / "run.yaml"), **extra).settings == found.settings


def test_all_problems_are_told_at_once(world: World, refused: Refuse) -> None:
    (world.pretrained / "campplus.onnx").unlink()
    found = refused(
        "modell: llm\nnum_workers: many\n",
        overrides=["train_conf.max_epochs=3", "flow.prompt_rate=0.1", "train_conf.keep_last=0"],
        train_subsets=["train-a", "train-z", "dev"],
        model="llm",
        launcher="pytorchjobs",
        num_nodes=2,
        average_num=9,
        max_reject_share=2.0,
        checkpoint="gone.pt",
        mlflow_uri=UNREACHABLE,
        job="gone.yaml",
        ref_model="/",
        train_engine="deepspeed",
        deepspeed_config="gone.json",
    )
    assert set(found.settings) == {
        "modell", "num_workers", "train_conf.max_epochs", "flow.prompt_rate", "train_conf.keep_last", "train_subsets",
        "dev_subsets", "launcher", "num_nodes", "average_num", "max_reject_share", "checkpoint", "mlflow_uri", "job",
        "ref_model", "deepspeed_config", "pretrained_dir",
    }  # fmt: skip
    assert any("train-z: no such folder" in said for said in found.problems["train_subsets"])


def test_what_takes_the_place_of_a_wrong_value_is_nobodys_problem(world: World, refused: Refuse) -> None:
    assert refused(train_subsets=["../x"]).settings == ["train_subsets"]
    assert refused(average_num=0, overrides=["train_conf.keep_best=3"]).settings == ["average_num"]


def test_a_data_root_of_version_0_1_is_refused(world: World, refused: Refuse) -> None:
    """Its manifests have no version; what they were made of cannot be told."""
    place = world.data / "prepare" / "dev"
    place.mkdir(parents=True)
    (place / "latest.json").write_text(json.dumps({"stage": "prepare", "key": "k", "uri": str(place)}))
    found = refused()
    assert found.settings == ["data_root"]
    assert f"was made by CosyFlow 0.1 ({place}/latest.json)" in found.problems["data_root"][0]


def test_stages_that_were_never_done_cannot_be_left_out(world: World, refused: Refuse) -> None:
    found = refused(start_stage=5)
    assert found.settings == ["start_stage"]
    assert len(found.lines) == 3
    assert "download/train-a" in found.problems["start_stage"][0] or "nothing finished there" in str(found.lines)
    assert all("start at stage -1 (download), or earlier" in line for line in found.lines)


def test_a_file_that_names_the_work_must_be_there_even_where_it_is_not_read(world: World, refused: Refuse) -> None:
    finish(world.record())
    (world.pretrained / "campplus.onnx").unlink()
    assert "campplus.onnx: no such file" in refused(start_stage=5).problems["run"][0]


CHECK = [sys.executable, "-m", "pipelines", "check"]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--train-engine", "deepspeed", "--deepspeed-config", "x.json"], ["deepspeed_config"]),
        (["--model", "hifigam", "--launcher", "pytorchjobs"], ["model", "launcher"]),
        (["--set", "train_conf.max_epochs=3", "--set", "average_num=9"], ["train_conf.max_epochs", "average_num"]),
        (["--train-subsets", "train-z", "--pretrained-dir", "nowhere"], ["train_subsets", *["pretrained_dir"] * 3]),
        (["--mlflow-uri", UNREACHABLE], ["mlflow_uri"]),
    ],
)
def test_the_command_refuses_in_a_moment(world: World, words: list[str], settings: list[str]) -> None:
    run = world.folder / "run.yaml"
    run.write_text(json.dumps(world.settings))
    before = world.everything()
    start = os.times().children_user
    ended = subprocess.run(
        [*CHECK, "--run", str(run), *words],
        cwd=CHECKOUT, env=os.environ | {"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert os.times().children_user - start < 5
    assert (ended.returncode, ended.stdout) == (2, "")
    assert [line.split(": ")[:2] for line in ended.stderr.splitlines()] == [["error", setting] for setting in settings]
    assert world.everything() == before


def in_a_store(world: World, data_root: str) -> dict[str, Any]:
    return {**world.settings, "data_root": data_root, "mlflow_uri": f"sqlite:///{world.folder}/mlflow.db"}


@pytest.mark.medium
def test_a_store_without_conditional_writes_is_told_of(world: World, s3_folder: str, s3_overwriting: str) -> None:
    examined = plan.examine(in_a_store(world, s3_folder))
    assert [line for line in examined.warnings if "may do equal work twice" in line]
    assert storage.list_files(s3_folder) == []


def test_a_store_with_conditional_writes_is_not_warned_of(world: World, s3_folder: str) -> None:
    examined = plan.examine(in_a_store(world, s3_folder))
    assert not [line for line in examined.warnings if "equal work" in line]
    assert storage.list_files(s3_folder) == []
