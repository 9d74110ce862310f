"""The object store restarts, or MLflow is away: work ends well, and nothing is lost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cosyflow import storage
from cosyflow.config.options import LaunchOptions
from cosyflow.launch.train_stage import launch
from cosyflow.standins.models import make_stand_ins
from cosyflow.training.arguments import Arguments
from tests.cluster.conftest import SPEECH
from tests.cluster.faults import kill_store, service_away
from tests.cluster.small_training import (
    LONG,
    NODES,
    UPDATES,
    gang,
    has_checkpoint,
    in_the_background,
    read_lines,
    timeline,
    wait_for,
)
from tests.cluster.stage_jobs import MLFLOW_HERE, StageJobs

pytestmark = pytest.mark.slow

NAMESPACE = "kubeflow"
MLFLOW_IN_PODS = "http://mlflow:5000"
TIMES = 30
"""How often each recording is in the data stage's corpus, so that the stage lasts."""


def test_the_store_restarts_during_training(
    arguments: Arguments,
    settings_file: str,
    kubernetes_core: Any,
    images: dict[str, str],
    figure: Callable[[str], None],
) -> None:
    def restart() -> None:
        wait_for("the first checkpoint", lambda: has_checkpoint(arguments), 240)
        began = time.monotonic()
        kill_store(kubernetes_core, NAMESPACE, images["base"])
        figure(f"the store was killed during training and ready again after {time.monotonic() - began:.0f} s")

    many = replace(arguments, max_steps=LONG)
    saboteur = in_the_background(restart)
    result = launch(many, gang(settings_file))
    saboteur.join()
    assert result.counts["updates"] == LONG
    assert [entry["event"] for entry in timeline(arguments)].count("restart") == 0
    logged = [entry["update"] for entry in read_lines(arguments, "metrics.jsonl") if "train/loss" in entry]
    assert logged == list(range(1, LONG + 1))


@pytest.fixture
def long_corpus(store: str, tmp_path: Path) -> list[str]:
    """A Kaldi folder below `store` with each recording of a subset TIMES times; gives the names of the utterances."""
    if not SPEECH.is_dir():
        pytest.skip(f"no recorded speech at {SPEECH}")
    storage.upload_tree(SPEECH / "train-clean-100", storage.join(store, "wavs"))
    recordings = sorted(file.path for file in storage.list_files(storage.join(store, "wavs")) if ".wav" in file.path)
    wavs = {f"s{number:02d}_{Path(path).stem}": path for number in range(TIMES) for path in recordings}
    utts = sorted(wavs)
    tables = {
        "wav.scp": [storage.join(store, "wavs", wavs[utt]) for utt in utts],
        "text": ["what is said"] * len(utts),
        "utt2spk": [utt.partition("_")[0] for utt in utts],
    }
    for name, values in tables.items():
        lines = "".join(f"{utt} {value}\n" for utt, value in zip(utts, values, strict=True))
        storage.write_text(storage.join(store, "kaldi", name), lines)
    speakers = sorted(set(tables["utt2spk"]))
    of = {spk: " ".join(utt for utt in utts if utt.startswith(f"{spk}_")) for spk in speakers}
    storage.write_text(storage.join(store, "kaldi", "spk2utt"), "".join(f"{spk} {of[spk]}\n" for spk in speakers))
    make_stand_ins(tmp_path / "pretrained")
    storage.upload_tree(tmp_path / "pretrained", storage.join(store, "pretrained"))
    return utts


def test_the_store_restarts_during_a_data_stage(
    store: str, long_corpus: list[str], stage_jobs: StageJobs, kubernetes_core: Any, images: dict[str, str]
) -> None:
    tokenizer = storage.join(store, "pretrained", "speech_tokenizer_v2.onnx")
    command = ["--dir", storage.join(store, "kaldi"), "--onnx_path", tokenizer]
    job = stage_jobs.start("extract", f"outage-{uuid.uuid4().hex[:4]}", "speech-token", *command)
    wait_for("the stage's first utterances", lambda: f"/{len(long_corpus)} utterances" in stage_jobs.log(job), 120)
    assert "done in" not in stage_jobs.log(job), "it ended too early to be disturbed"
    kill_store(kubernetes_core, NAMESPACE, images["base"])
    finished = stage_jobs.wait(job)
    assert finished.succeeded, finished.log
    with storage.local_copy(storage.join(store, "kaldi", "utt2speech_token.pt")) as path:
        tokens = torch.load(path, weights_only=True)
    assert list(tokens) == long_corpus
    assert storage.read_text(storage.join(store, "kaldi", "rejects.tsv")).count("\n") <= 1
    recording = {utt: utt.partition("_")[2] for utt in long_corpus}
    undisturbed = {recording[utt]: tokens[utt] for utt in long_corpus[: len(long_corpus) // TIMES]}
    assert all(tokens[utt] == undisturbed[recording[utt]] for utt in long_corpus)


def test_mlflow_is_away_for_a_whole_run(arguments: Arguments, settings_file: str, kubernetes_core: Any) -> None:
    from mlflow import MlflowClient

    experiment = f"cosyflow-test-{uuid.uuid4().hex[:8]}"
    tracked = replace(arguments, mlflow_uri=MLFLOW_IN_PODS, experiment=experiment)
    with service_away(kubernetes_core, NAMESPACE, "mlflow"):
        result = launch(tracked, gang(settings_file))
    assert result.counts["updates"] == UPDATES
    log = storage.read_text(storage.join(arguments.model_dir, "train.log"))
    assert log.count("warning: MLflow does not take metrics") == 1
    waiting = read_lines(arguments, "mlflow_unsent.jsonl")
    assert len([entry for entry in waiting if "train/loss" in entry["values"]]) == UPDATES

    # As many processes go on with it here: nothing is left to train, much to be sent.
    launch(replace(tracked, mlflow_uri=MLFLOW_HERE), LaunchOptions(launcher="local", gpus_per_node=NODES))
    client = MlflowClient(tracking_uri=MLFLOW_HERE)
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")] == list(
        range(1, UPDATES + 1)
    )
    assert run.info.status == "FINISHED"
    assert not storage.exists(storage.join(arguments.model_dir, "mlflow_unsent.jsonl"))
    client.delete_experiment(found.experiment_id)
