"""A little world for the tests of runs: speech, pretrained files, and stages whose work is to write one small file."""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import components
from cosyflow.content import Digests
from cosyflow.families import families
from cosyflow.families.parts import QWEN2_FOLDER, WHISPER_RANKS
from cosyflow.pretrained import SPEAKER_MODEL
from cosyflow.run import config
from cosyflow.run.chain import inputs_of
from cosyflow.run.config import PARAMETERS, default_of
from cosyflow.run.definition import Job, Stage
from cosyflow.run.execute import execute, find_work
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest, StageResult

TOKENIZERS = tuple(each.speech_tokenizer.file for each in families())
WEIGHTS = ("llm.pt", "flow.pt", "hift.pt")
QWEN_FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt")
SUBSETS = {"train_subsets": ["train-a", "train-b"], "dev_subsets": ["dev"], "test_subsets": ["none"]}
EVERY_SUBSET = (*SUBSETS["train_subsets"], *SUBSETS["dev_subsets"])


class World:
    """A folder with a speech corpus, pretrained files and a place for data.

    Attributes:
        settings: of a run that can work; `run` and `record` take changes of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.speech, self.pretrained, self.data = folder / "speech", folder / "pretrained", folder / "data"
        for subset in EVERY_SUBSET:
            make_subset(self.speech / subset)
        make_pretrained(self.pretrained)
        self.settings: dict[str, Any] = {
            "data_root": str(self.data),
            "recipe": "cosyvoice2.tiny",
            "data_url": str(self.speech),
            "pretrained_dir": str(self.pretrained),
            **SUBSETS,
        }

    def record(self, **changed: Any) -> Record:
        return Record.of(config.from_parameters({**self.settings, **changed}))

    def everything(self) -> dict[str, bytes]:
        """All files of the world, by path."""
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


class Refused:
    """What the component `plan` says of a run that it refuses: its exit status, and what it says of each setting."""

    def __init__(self, status: Any, lines: list[str]) -> None:
        self.status, self.lines = status, lines
        self.problems: dict[str, list[str]] = {}
        for line in lines:
            assert line.startswith("error: "), line
            setting, _, text = line.removeprefix("error: ").partition(": ")
            self.problems.setdefault(setting, []).append(text)

    @property
    def settings(self) -> list[str]:
        return list(self.problems)


def plan_component(run: str = "", **changed: Any) -> Any:
    """Calls the component `plan` as Kubeflow does, with a value for every parameter."""
    values = {name: default_of(name) for name in PARAMETERS} | changed
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return components.plan.python_func(run=run, **values)


def make_subset(folder: Path, texts: tuple[str, ...] = ("Hello there.", "Good bye.")) -> Path:
    """A LibriTTS tree of one speaker with an utterance for each text."""
    for number, text in enumerate(texts):
        utterance = folder / "84" / "121" / f"84_121_{number:06}_000000"
        make_wav(utterance.with_suffix(".wav"), pitch=number + 1)
        utterance.with_suffix(".normalized.txt").write_text(text)
    return folder


def make_wav(path: Path, pitch: int = 1, seconds: float = 0.1, rate: int = 24000) -> Path:
    """A short sound; another pitch gives other samples of the same length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = bytes(pitch * position % 251 for position in range(2 * int(seconds * rate)))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return path


def make_pretrained(folder: Path) -> Path:
    """Files with the names of a pretrained directory; nothing here looks into them."""
    (folder / QWEN2_FOLDER).mkdir(parents=True)
    for name in (
        SPEAKER_MODEL,
        *TOKENIZERS,
        WHISPER_RANKS,
        *WEIGHTS,
        *(f"{QWEN2_FOLDER}/{file}" for file in QWEN_FILES),
    ):
        (folder / name).write_text(f"as released: {name}")
    return folder


def small_work(job: Job) -> StageResult:
    """What stands in for every stage's own work: it writes a file that tells the work's key."""
    (Path(job.output) / "made.txt").write_text(f"{job.name} {Path(job.output).name}")
    return StageResult({"inputs": 3, "outputs": 3, "rejects": 0}, ["made.txt"])


def small_training(job: Job) -> StageResult:
    """What stands in for a training: checkpoints as `cosyflow.training` leaves them, without states."""
    epochs = job.record.recipe.train_conf.max_epoch
    names = []
    for epoch in range(epochs):
        name = f"epoch_{epoch}_whole"
        (Path(job.output) / f"{name}.pt").write_text(f"weights of {epoch}")
        (Path(job.output) / f"{name}.yaml").write_text(f"epoch: {epoch}\nstep: {epoch}\nloss_dict: {{loss: 1.0}}\n")
        names += [f"{name}.pt", f"{name}.yaml"]
    details = {"max_epoch": epochs, "train_loss_first": 4.0, "train_loss_last": 1.0}
    return StageResult({"epochs": epochs}, names, details, digest=f"{Path(job.output).name} at {epochs}")


def with_work(stage: Stage, work: Callable[[Job], StageResult] | None = None) -> Stage:
    """A stage that names its work as it does, and does other work."""
    return replace(stage, work=work or (small_training if stage.name == "train" else small_work))


def finish(record: Record, last: str = "register") -> dict[str, Manifest]:
    """Does a run up to a stage with small work. Returns the manifests as `{STAGE/NAME: manifest}`."""
    digests = Digests(record.digests)
    made: dict[str, Manifest] = {}
    for stage in STAGES.values():
        for name in stage.names(record):
            inputs = [made[f"{before.name}/{subset}"] for before, subset in inputs_of(stage, name, record)]
            made[f"{stage.name}/{name}"] = execute(find_work(with_work(stage), record, name, inputs, digests), record)
        if stage.name == last:
            break
    return made
