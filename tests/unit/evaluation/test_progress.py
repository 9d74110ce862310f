"""Samples of a training: each checkpoint speaks the same texts once, for the ear, TensorBoard and MLflow."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import soundfile
import torch

from cosyflow.checkpoint.official import load_official, save_official
from cosyflow.cli import main
from cosyflow.config.recipe import Recipe
from cosyflow.evaluation.listing import Entry, read_list, write_list
from cosyflow.evaluation.progress import Listening, read_spoken
from cosyflow.mlflow_server import connect
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.training.language_model import build_language_model
from tests.unit.evaluation.conftest import CONFIG, SMALLER

SETTINGS = [word for setting in SMALLER for word in ("--set", setting)]


class Training:
    """A folder into which checkpoints come; `part` is what they are of."""

    def __init__(self, folder: Path, recipe: Recipe, pretrained: Path, entries: Sequence[Entry]) -> None:
        self.folder, self.recipe, self.pretrained = folder / "train", recipe, pretrained
        self.folder.mkdir()
        self.list = folder / "list.tsv"
        write_list(entries, str(self.list))

    def save(self, epoch: int, part: str = "llm", name: str = "") -> None:
        """A checkpoint after ten more updates, with other random weights."""
        torch.manual_seed(100 + epoch)
        recipe = self.recipe
        builders: dict[str, Callable[[], torch.nn.Module]] = {
            "llm": lambda: build_language_model(recipe.llm),
            "flow": lambda: build_flow(recipe.flow),
            "hifigan": lambda: torch.nn.ModuleDict({"generator": HiFTGenerator(recipe.hifigan.generator)}),
        }
        name = name or f"epoch_{epoch}_whole"
        save_official(builders[part](), self.folder / f"{name}.pt")
        record = {"epoch": epoch, "step": 10 * epoch + 10, "model": part}
        (self.folder / f"{name}.yaml").write_text(json.dumps(record))

    def end(self, epoch: int) -> None:
        (self.folder / "result.json").write_text(json.dumps({"checkpoint": f"epoch_{epoch}_whole"}))

    def words(self, *more: str) -> list[str]:
        places = ["--train_dir", str(self.folder), "--pretrained_dir", str(self.pretrained), "--list", str(self.list)]
        return ["samples", *places, "--config", CONFIG, *SETTINGS, *more]

    def wavs(self) -> dict[str, bytes]:
        return {str(wav.relative_to(self.folder)): wav.read_bytes() for wav in self.folder.rglob("*.wav")}


@pytest.fixture
def training(tmp_path: Path, recipe: Recipe, model_dirs: Callable[[int], Path], entries: list[Entry]) -> Training:
    return Training(tmp_path, recipe, model_dirs(0), entries)


@pytest.mark.medium
def test_each_checkpoint_speaks_once(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    training.save(0)
    training.save(1)
    assert main(training.words("--num_utts", "1")) == 0
    assert "2 checkpoints were heard" in capsys.readouterr().out
    first = training.wavs()
    assert first.keys() == {f"samples/epoch_{epoch}_whole/00000-a.wav" for epoch in (0, 1)}
    assert len(set(first.values())) == 2
    training.save(2)
    assert main(training.words("--num_utts", "1")) == 0
    assert "1 checkpoints were heard" in capsys.readouterr().out
    assert first.items() < training.wavs().items()
    assert [(each.update, each.part) for each in read_spoken(str(training.folder))] == [
        (10, "llm"), (20, "llm"), (30, "llm"),
    ]  # fmt: skip


@pytest.mark.medium
@pytest.mark.parametrize("part", ["flow", "hifigan"])
def test_every_part_is_heard_with_the_others_of_the_pretrained_directory(training: Training, part: str) -> None:
    training.save(0, part)
    training.save(1, part)
    assert main(training.words("--num_utts", "1")) == 0
    wavs = training.wavs()
    assert len(set(wavs.values())) == 2
    lengths = {soundfile.info(training.folder / name).frames for name in wavs}
    assert len(lengths) == 1  # both speak the tokens of one language model


@pytest.mark.medium
def test_checkpoints_are_chosen_by_updates(training: Training) -> None:
    for epoch in range(5):
        training.save(epoch)
    training.save(4, name="epoch_4_step_50")  # of equal update, so of equal weights
    listening = Listening(str(training.folder), "", training.recipe, [], every=20)
    assert [checkpoint.update for checkpoint in listening.waiting()] == [10, 30, 50]
    (training.folder / "samples" / "epoch_1_whole").mkdir(parents=True)
    heard = {"checkpoint": "epoch_1_whole", "update": 20, "part": "llm", "samples": []}
    (training.folder / "samples" / "epoch_1_whole" / "samples.json").write_text(json.dumps(heard))
    assert [checkpoint.update for checkpoint in listening.waiting()] == [10, 40]


@pytest.mark.slow
def test_samples_go_to_tensorboard_and_mlflow(training: Training, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = connect(address)
    run = client.create_run(client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri()))
    (training.folder / "mlflow_run.json").write_text(json.dumps({"uri": address, "run_id": run.info.run_id}))
    training.save(0)
    places = ("--tensorboard_dir", str(tmp_path / "events"), "--mlflow_uri", address)
    assert main(training.words("--num_utts", "1", *places)) == 0
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    (sound,) = events.Audio("samples/a")
    (picture,) = events.Images("samples/a")
    assert (sound.step, picture.step, picture.height) == (10, 10, 80)
    names = {each.path for each in client.list_artifacts(run.info.run_id, "samples/00000010")}
    assert names == {f"samples/00000010/00000-a.{kind}" for kind in ("wav", "png")}


@pytest.mark.medium
def test_a_server_that_fails_stops_nothing(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    training.save(0)
    assert main(training.words("--num_utts", "1", "--mlflow_uri", "sqlite:////nowhere/mlflow.db")) == 0
    output = capsys.readouterr().out
    assert "warning: the samples of epoch_0_whole do not go to MLflow" in output
    assert "1 checkpoints were heard" in output


@pytest.mark.medium
def test_a_training_is_followed_to_its_end(training: Training) -> None:
    """Checkpoints come and go meanwhile; only the newest is heard."""
    entry = Listening(str(training.folder), str(training.pretrained), training.recipe, _entries(training), every=0)
    heard: list[str] = []
    counts: list[int] = []
    shown = threading.Event()

    def show(folder: str, spoken: object) -> None:
        heard.append(Path(folder).name)
        shown.set()

    follower = threading.Thread(target=lambda: counts.append(entry.follow(show, 0.05)), daemon=True)
    follower.start()
    training.save(0)
    assert shown.wait(60)
    shown.clear()
    (training.folder / "epoch_0_whole.pt").unlink()
    training.save(1, name="epoch_1_whole")
    assert shown.wait(60)
    training.end(1)
    follower.join(60)
    assert counts == [2]
    assert heard == ["epoch_0_whole", "epoch_1_whole"]


def _entries(training: Training) -> list[Entry]:
    return read_list(str(training.list))[:1]


def test_what_cannot_be_heard_is_named(training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = training.words()
    place = command.index("--config")
    assert main([*command[:place], "--every", "-1"]) == 2
    assert capsys.readouterr().err == "error: --every: -1 is negative; give 0 or more\n"
    assert main(command[:place]) == 2
    assert "recipe.yaml is not there; name the recipe of the training" in capsys.readouterr().err
    training.save(0)
    record = training.folder / "epoch_0_whole.yaml"
    record.write_text(json.dumps({"epoch": 0, "step": 10}))
    assert main(command) == 1
    assert "does not say which part it is of; name it with --part" in capsys.readouterr().err
    assert main([*command, "--part", "flow"]) == 1
    assert "epoch_0_whole.pt: does not fit the model" in capsys.readouterr().err
    assert not (training.folder / "samples").exists()


def test_the_weights_of_a_vocoders_training_are_its_generator(training: Training) -> None:
    training.save(0, "hifigan")
    load_official(HiFTGenerator(training.recipe.hifigan.generator), training.folder / "epoch_0_whole.pt")
