"""What a small run leaves: real shards, real metrics, manifests and ends, and the report of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from cosyflow import storage
from cosyflow.config.gate import GateConf
from cosyflow.config.load import load_config
from cosyflow.corpus.rejects import RejectTable
from cosyflow.dataset.parquet import make_parquet
from cosyflow.dataset.tables import UTT2SPEECH_TOKEN
from cosyflow.evaluation.gate import decide
from cosyflow.evaluation.judges.named import find_judges
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.report import Subject, build_report
from cosyflow.evaluation.rows import CANDIDATE, RECORDED, judge_row
from cosyflow.evaluation.speaking import Model
from cosyflow.evaluation.workers import Workers
from cosyflow.run import config
from cosyflow.run.ends import End, leave_plan
from cosyflow.run.record import Record
from cosyflow.stage import MANIFEST, Manifest, StageResult
from cosyflow.training.tracking.metrics_file import METRICS_FILE, MetricsFile
from tests.unit.packages import CHECKOUT

RUN = "first"
EVIL = "<script>alert('1')</script>&amp;\"x\""
"""A text as nobody should put it into a page as it is."""


def tone(path: Path, seconds: float, rate: int = 24000) -> str:
    """A rising tone."""
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 200 * time) * time), rate)
    return str(path)


class FinishedRun:
    """A run of two trained parts below `root`, a folder or a store; `uri` is where its tasks left their ends."""

    def __init__(self, root: str, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.uri = storage.join(root, "runs", RUN)
        settings = {"data_root": root, "recipe": "cosyvoice2.tiny", "mlflow_uri": "http://mlflow.example:5000"}
        self.record = Record.of(config.from_parameters(settings)).write()
        self.manifests: list[Manifest] = []

    def finish(self, stage: str, name: str, result: StageResult, url: str = "") -> Manifest:
        """The manifest of a stage's work."""
        uri = self.place(stage, name)
        made_by = {"run": "kfp-1", "url": url} if url else {}
        manifest = Manifest(
            stage=stage, name=name, key="k", uri=uri, digest="d", counts=result.counts,
            files=dict.fromkeys(result.files, 1), folders={}, settings={}, inputs=[], details=result.details,
            seconds=1.5, stand_ins=False, made_by=made_by, record=self.record,
        )  # fmt: skip
        storage.write_text(storage.join(uri, MANIFEST), manifest.to_json())
        self.manifests.append(manifest)
        return manifest

    def place(self, stage: str, name: str) -> str:
        return storage.join(self.root, stage, name, "k")

    def leave(self, *failed: End) -> str:
        """The ends of its tasks. Returns the run's folder."""
        leave_plan(self.root, [*(End.of(manifest) for manifest in self.manifests), *failed], self.record, RUN)
        return self.uri

    def parquet(self, subset: str, lengths: dict[str, tuple[str, float]]) -> Manifest:
        """Shards of utterances, with the speaker and the seconds of each; two a shard."""
        kaldi = self.folder / "kaldi" / subset
        kaldi.mkdir(parents=True)
        wavs = {utt: tone(kaldi / f"{place}.wav", length) for place, (utt, (_, length)) in enumerate(lengths.items())}
        texts = {utt: f"text of {utt}" for utt in lengths}
        for name, table in (("wav.scp", wavs), ("text", texts), ("utt2spk", {u: s for u, (s, _) in lengths.items()})):
            (kaldi / name).write_text("".join(f"{utt} {value}\n" for utt, value in table.items()))
        tokens = {utt: [1] * round(length * 25) for utt, (_, length) in lengths.items()}
        torch.save(tokens, kaldi / UTT2SPEECH_TOKEN)
        made = make_parquet(str(kaldi), None, str(kaldi), self.place("parquet", subset), num_utts_per_parquet=2)
        return self.finish("parquet", subset, made)

    def prepare(self, subset: str, rejects: dict[str, str]) -> Manifest:
        table = RejectTable()
        for utt, reason in rejects.items():
            table.add(utt, reason)
        table.write(self.place("prepare", subset))
        counts = {"inputs": len(rejects) + 3, "outputs": 3, "rejects": len(rejects)}
        return self.finish("prepare", subset, StageResult(counts, ["rejects.tsv"]))

    def train(self, part: str, updates: int = 6, url: str = "") -> Manifest:
        metrics = MetricsFile(storage.join(self.place("train", part), METRICS_FILE), 0)
        for update in range(1, updates + 1):
            metrics.write(update, {"train/loss": 5 / update, "train/acc": 0.1 * update, "train/lr": 1e-3})
        metrics.write(updates, {"train_epoch/loss": 2.0, "cv/loss": 2.5})
        metrics.close(True)
        details = {"train_loss_first": 5.0, "train_loss_last": 1.0, "mlflow_run_id": f"run-of-{part}"}
        return self.finish("train", part, StageResult({"updates": updates}, [METRICS_FILE], details), url)


@pytest.fixture
def finished(tmp_path: Path) -> FinishedRun:
    """A run of three utterances, with texts and names that would be tags."""
    run = FinishedRun(str(tmp_path / "data"), tmp_path)
    rejects = {
        f"bad-{place}": f"/speech/bad-{place}.wav: {length} s, too long" for place, length in ((1, 35.2), (2, 41))
    }
    run.prepare("train-a", {**rejects, "bad-3": f"{EVIL} in its name"})
    run.parquet("train-a", {"a-1": ("ann", 1.0), "a-2": ("ann", 1.5), "b-1": ("<b>bob</b>", 2.0)})
    run.train("cosyvoice2.tiny-llm", url="http://kfp.example/#/runs/details/kfp-1")
    run.train("cosyvoice2.tiny-flow")
    versions = {"versions": {"cosyvoice2.tiny-llm": 3}}
    run.finish("register", "cosyvoice2.tiny-llm", StageResult({}, [], versions))
    return run


def evaluate(folder: Path, texts: dict[str, str], seconds: float = 0.5, heard: str | None = None) -> str:
    """A real report on tones that were "spoken", without judges; `heard` is put into it. Returns its folder."""
    folder.mkdir()
    (folder / "wavs").mkdir()
    names = [f"{place:03d}" for place in range(len(texts))]
    wavs = {row: [tone(folder / "wavs" / f"{row}{name}.wav", seconds) for name in names] for row in ("spoken", "true")}
    entries = [
        Entry(utt, wav, "said", text, wav, "ann")
        for (utt, text), wav in zip(texts.items(), wavs["true"], strict=True)
    ]  # fmt: skip
    judges, pool = find_judges(""), Workers(None)
    rows = {
        name: judge_row(name, wavs[which], entries, judges, pool, str(folder / name), "en")
        for name, which in ((CANDIDATE, "spoken"), (RECORDED, "true"))
    }
    recipe = load_config(str(CHECKOUT / "conf" / "cosyvoice2.tiny.yaml"))
    models = {CANDIDATE: Model("exp/model", recipe, {"llm.pt": "1" * 64})}
    gate = GateConf()
    subject = Subject("list.tsv", "2" * 64, 0, "en", judges, models, {}, ["a doubtful prompt"], gate)
    report: Any = json.loads(
        json.dumps(build_report(subject, entries, rows, decide(gate, rows[CANDIDATE].pairs, None)))
    )
    if heard is not None:
        for found in report["utterances"][CANDIDATE].values():
            found["heard"] = heard
    storage.write_json(str(folder / "report.json"), report)
    return str(folder)


def summary_of(run: FinishedRun, folder: Path) -> str:
    """The folder of the same run on this machine, with its summary.json."""
    stages = [
        {"stage": each.stage, "name": each.name, "key": each.key, "uri": each.uri, "state": "made", "seconds": 1.5}
        for each in run.manifests
    ]
    storage.write_json(str(folder / "summary.json"), {"stages": stages, "registered": [], "report": ""})
    return str(folder)
