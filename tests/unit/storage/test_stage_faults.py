"""Whole stages on a store that fails: all of the output, or status 1 with the store's code and the object.

`make faults` runs all of the table; of `tests/unit` the part that is not left out below.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.cli.main import main
from cosyflow.standins.corpus import pack_corpus, serve
from cosyflow.standins.onnx_models import write_onnx_models
from cosyflow.storage import patience
from tests.unit.conftest import BUCKET
from tests.unit.run.world import make_wav
from tests.unit.s3_proxy import FAULTS, OPERATIONS, Plan, is_possible, proxy

UTTERANCES = [f"84_121_{number:06}_000000" for number in range(3)]
SPEECH = r"84_121_000001_000000\.wav"
PASSING = ("InternalError", "SlowDown", "reset", "hang", "truncated")
"""After these the same request succeeds. Altered bytes are noticed at the latest when all are read."""
ALWAYS = float("inf")
STAGES = ("download", "prepare", "speaker-embedding", "speech-token", "parquet", "merge")
READS_SPEECH = STAGES[1:5]
ALL = [
    (stage, operation, fault, times, where)
    for stage in STAGES
    for operation in OPERATIONS
    for fault in FAULTS
    if is_possible(operation, fault)
    for times in (1, ALWAYS)
    for where in (("", SPEECH) if operation in ("GET", "HEAD") and stage in READS_SPEECH else ("",))
]
QUICK = [
    ("parquet", "GET", "AccessDenied", ALWAYS, SPEECH),
    ("parquet", "GET", "ExpiredToken", 1, SPEECH),
    ("parquet", "GET", "NoSuchKey", ALWAYS, SPEECH),
    ("parquet", "GET", "truncated", 1, SPEECH),
    ("parquet", "GET", "altered", ALWAYS, SPEECH),
    ("prepare", "GET", "AccessDenied", 1, SPEECH),
    ("prepare", "LIST", "SlowDown", 1, ""),
    ("speaker-embedding", "GET", "NoSuchKey", 1, SPEECH),
    ("speech-token", "GET", "ExpiredToken", ALWAYS, SPEECH),
    ("merge", "GET", "AccessDenied", 1, ""),
    ("merge", "HEAD", "NoSuchKey", 1, ""),
    ("download", "PUT", "ExpiredToken", 1, ""),
    ("download", "PUT", "reset", 1, ""),
]
TABLE = ALL if os.environ.get("COSYFLOW_TEST_FAULTS") == "all" else QUICK


@dataclass(frozen=True)
class World:
    """A corpus in the store and each stage's output, made when nothing fails."""

    base: str
    models: Path
    mirror: str

    def command(self, stage: str, output: str) -> list[str]:
        good = f"{self.base}/good"
        models = {"speaker-embedding": "campplus.onnx", "speech-token": "speech_tokenizer_v2.onnx"}
        if stage == "download":
            return [stage, "--part", "dev-clean", "--data_url", self.mirror, "--output_dir", output]
        if stage == "prepare":
            return [stage, "--src_dir", f"{self.base}/speech", "--des_dir", output]
        if stage in models:
            model = str(self.models / models[stage])
            return [stage, "--dir", f"{good}/prepare", "--onnx_path", model, "--output_dir", output]
        if stage == "parquet":
            tables = ["--embedding_dir", f"{good}/speaker-embedding", "--token_dir", f"{good}/speech-token"]
            return [stage, "--src_dir", f"{good}/prepare", "--des_dir", f"{output}/dev/parquet", *tables]
        return [
            stage,
            "--src_dir",
            f"{good}/parquet",
            "--des_dir",
            output,
            "--train_subsets",
            "dev",
            "--dev_subsets",
            "dev",
        ]

    def made(self, folder: str) -> dict[str, bytes]:
        """The files of a stage, without the address of its folder and what time changes."""
        files = (file.path for file in storage.list_files(folder))
        contents = {file: storage.read_bytes(f"{folder}/{file}").replace(folder.encode(), b"") for file in files}
        return {file: content for file, content in contents.items() if not file.endswith("manifest.json")}


@pytest.fixture(scope="module")
def world(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    local = tmp_path_factory.mktemp("world")
    write_onnx_models(local, seed=0)
    corpus = local / "LibriTTS" / "dev-clean"
    for number, name in enumerate(UTTERANCES):
        utterance = corpus / "84" / "121" / name
        make_wav(utterance.with_suffix(".wav"), pitch=number + 1, seconds=1.0 + number / 10)
        utterance.with_suffix(".normalized.txt").write_text(f"This is sentence {number}.")
    with pytest.MonkeyPatch.context() as environment, serve(archived(local)) as url:
        environment.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "test-access-key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
        made = World(f"s3://{BUCKET}/{local.name}", local, url)
        storage.upload_tree(corpus, f"{made.base}/speech")
        for stage in STAGES:
            assert main(made.command(stage, f"{made.base}/good/{stage}")) == 0
        yield made


def archived(local: Path) -> Path:
    mirror = local / "mirror"
    pack_corpus(local / "LibriTTS", mirror)
    return mirror


@pytest.fixture
def plan(world: World, s3_folder: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    monkeypatch.setenv("COSYFLOW_S3_PATIENCE", "0.1")
    monkeypatch.setenv("COSYFLOW_S3_TIMEOUT", "5")
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    with proxy(s3_endpoint) as (address, planned):
        monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", address)
        yield planned


@pytest.mark.medium
@pytest.mark.parametrize(("stage", "operation", "fault", "times", "where"), TABLE)
def test_all_or_an_error_with_the_code(
    world: World,
    plan: Plan,
    s3_folder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    operation: str,
    fault: str,
    times: float,
    where: str,
) -> None:
    expected = world.made(f"{world.base}/good/{stage}")
    command = world.command(stage, s3_folder)
    if fault == "hang":
        monkeypatch.setenv("COSYFLOW_S3_TIMEOUT", "0.5")
    plan.operation, plan.fault, plan.times, plan.where = operation, fault, times, where
    status = main(command)
    plan.times = 0
    error = capsys.readouterr().err
    if status == 0:
        assert world.made(s3_folder) == expected
        assert times == 1 or not plan.hit or fault == "NoSuchKey"
        return
    assert status == 1
    assert plan.hit
    assert times > 1 or fault not in PASSING, error
    (line,) = [line for line in error.splitlines() if "error: " in line]
    assert "s3://" in line
    assert "Traceback" not in error
    if fault in ("AccessDenied", "ExpiredToken") and operation != "HEAD":
        assert f"{fault} (HTTP status 40" in line
    if where:
        assert UTTERANCES[1] in line
