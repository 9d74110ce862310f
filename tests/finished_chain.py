"""A finished pipeline for tests: every stage's files and manifest on disk or in a store, made without the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.corpus.source import folder_digest
from cosyflow.release.history import tags_of
from cosyflow.release.register import RECORD, register_models
from cosyflow.run.keys import key_of
from cosyflow.stage import MANIFEST, Manifest, StageResult, digest_of, measure

MODEL = "cosyvoice2.tiny-llm"


@dataclass
class Pipeline:
    """What a run of the pipeline would have made below `root`. Whatever is set here shows in its manifests."""

    root: str
    subsets: Sequence[str] = ("train-a", "dev-a")
    speech: Mapping[str, str] = field(default_factory=dict)
    epochs: int = 2
    average_num: int = 5
    loss: float = 4.5
    commit: str = "a" * 40
    version: int = 1
    image: str = "cosyflow-train:1"
    mlflow_run_id: str = ""
    start: Mapping[str, str] = field(default_factory=dict)
    own_folder: str = ""
    """A folder of one's own that is used in place, for the first subset."""

    def make(self) -> tuple[Manifest, Manifest]:
        """Makes all stages from download to export; returns the manifests of average and export."""
        self._write_record()
        parquets = [self._prepare(subset) for subset in self.subsets]
        trained_on = "\n".join(manifest.uri for manifest in parquets[:-1])
        lists = {"train.data.list": trained_on, "dev.data.list": parquets[-1].uri}
        merged = self.finish("merge", "lists", parquets, lists)
        details = {"cv_loss_last": self.loss, "device": "1 x cpu"}
        if self.mlflow_run_id:
            details["mlflow_run_id"] = self.mlflow_run_id
        settings = {"train_conf": {"max_epoch": self.epochs}, "start": dict(self.start)}
        weights = {"epoch_0_whole.pt": f"weights of {self.epochs} {merged.digest}", "epoch_0_whole.yaml": "loss: 4"}
        trained = self.finish("train", MODEL, [merged], weights, settings, details)
        average = {"llm.pt": f"mean of {self.average_num} {trained.digest}"}
        averaged = self.finish("average", MODEL, [trained], average, {"average_num": self.average_num})
        exported = self.finish("export", MODEL, [averaged], {"llm.zip": f"script of {averaged.digest}"})
        return averaged, exported

    def register(self, mlflow_uri: str) -> Manifest:
        """Makes all stages and registers a version of MODEL with the tags of its history."""
        averaged, exported = self.make()
        inputs = [averaged, exported]
        folder = storage.join(self.root, "register", MODEL, self._key("register", MODEL, inputs, {}))
        models = {MODEL: storage.join(averaged.uri, "llm.pt")}
        tags = tags_of(averaged, exported, {"average_num": 5, "recipe": "cosyvoice2", "overrides": ()})
        result = register_models(models, folder, mlflow_uri, tags)
        versions = storage.read_text(storage.join(folder, RECORD))
        return self.finish("register", MODEL, inputs, {RECORD: versions}, details=result.details)

    def finish(
        self,
        stage: str,
        name: str,
        inputs: Sequence[Manifest],
        files: Mapping[str, str],
        settings: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
        result: StageResult | None = None,
    ) -> Manifest:
        """Writes a stage's files and its manifest. `result` tells what else the stage would have told."""
        settings, told = dict(settings or {}), result or StageResult({}, [], dict(details or {}))
        key = self._key(stage, name, inputs, settings)
        folder = storage.join(self.root, stage, name, key)
        for file, text in files.items():
            storage.write_text(storage.join(folder, file), text)
        digests = {file: storage.digest(storage.join(folder, file)) for file in files}
        made_by = {"cosyflow": "0.2.0", "commit": self.commit, "clean": "true", "image": self.image}
        manifest = Manifest(
            stage=stage,
            name=name,
            key=key,
            uri=folder,
            digest=told.digest or digest_of(digests),
            counts=told.counts,
            files={file: storage.size(storage.join(folder, file)) for file in files},
            folders={below: measure(folder, below) for below in told.folders},
            settings=settings,
            inputs=[manifest.digest for manifest in inputs],
            details=told.details,
            seconds=1.0,
            stand_ins=False,
            version=self.version,
            sources=[manifest.uri for manifest in inputs],
            digests=digests,
            made_by={**made_by, "run": "kfp-1", "url": "http://kfp/#/runs/details/kfp-1"},
            record=self.record,
        )
        storage.write_text(storage.join(folder, MANIFEST), manifest.to_json())
        return manifest

    @property
    def record(self) -> str:
        return storage.join(self.root, "runs", f"run-{self.epochs}-{self.average_num}.json")

    def _write_record(self) -> None:
        overrides = [f"train_conf.max_epoch={self.epochs}"]
        run = {"recipe": "cosyvoice2.tiny", "overrides": overrides, "average_num": self.average_num}
        recipe = {"version": "cosyvoice2", "train_conf": {"max_epoch": self.epochs, "optim": "adam"}}
        storage.write_json(self.record, {"run": run, "recipe": recipe})

    def _prepare(self, subset: str) -> Manifest:
        """The stages of one subset; returns the manifest of parquet."""
        speech = self.speech.get(subset, "speech")
        details = {"archive": f"https://example.org/{subset}.tar.gz", "md5": "5" * 32, "sha256": "6" * 64}
        record = {f"LibriTTS/{subset}/.cosyflow-download.json": speech}
        tree = StageResult({}, [], details, folders=[f"LibriTTS/{subset}"])
        if self.own_folder and subset == self.subsets[0]:
            record, tree = {}, self._use_in_place()
        downloaded = self.finish("download", subset, [], record, {"speech": speech}, result=tree)
        prepared = self.finish("prepare", subset, [downloaded], {"text": f"utt {speech}"})
        embeddings = self.finish("speaker-embedding", subset, [prepared], {"utt2embedding.pt": f"vectors of {speech}"})
        tokens = self.finish("speech-token", subset, [prepared], {"utt2speech_token.pt": f"tokens of {speech}"})
        shards = {"data.list": "shard.tar", "shard.tar": f"shard of {speech}"}
        return self.finish("parquet", subset, [prepared, embeddings, tokens], shards)

    def _use_in_place(self) -> StageResult:
        files, size = measure(self.own_folder, "")
        digest = folder_digest(self.own_folder, Digests())
        return StageResult({"files": files, "bytes": size}, [], {"source": self.own_folder}, digest=digest)

    def _key(self, stage: str, name: str, inputs: Sequence[Manifest], settings: Mapping[str, Any]) -> str:
        digests = [manifest.digest for manifest in inputs]
        return key_of(stage, name, self.version, settings, digests)
