"""A training that is asked for more epochs, or goes on in another way, ends as one that was never interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cosyflow.cli import main
from cosyflow.errors import RefusalError
from cosyflow.training.arguments import Arguments
from cosyflow.training.process import run
from tests.local.token_corpus import RECIPE, TokenCorpus

SETTINGS = (
    "llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48",
    "train_conf.tokens_per_step=300", "train_conf.accum_grad=1", "train_conf.keep_last=20",
)  # fmt: skip
OF_TIME = {"time", "train/tokens_per_second"}


def arguments(corpus: TokenCorpus, model_dir: Path, epochs: int, *settings: str, **options: Any) -> Arguments:
    return Arguments(
        config=str(RECIPE),
        train_data=corpus.train_list,
        cv_data=corpus.dev_list,
        tokenizer_path=corpus.qwen2,
        model_dir=str(model_dir),
        overrides=(*SETTINGS, f"train_conf.max_epoch={epochs}", "train_conf.log_interval=4", *settings),
        **{"num_workers": 0, **options},
    )


@pytest.fixture(scope="module")
def whole(corpus: TokenCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten epochs at once."""
    directory = tmp_path_factory.mktemp("whole")
    assert run(arguments(corpus, directory, 10)).finished
    return directory


def losses(directory: Path) -> dict[str, Any]:
    told = ("loss_dict", "lr", "grad_norm", "epoch", "step")
    records = {path.stem: yaml.safe_load(path.read_text()) for path in directory.glob("*_whole.yaml")}
    return {tag: [record[name] for name in told] for tag, record in records.items()}


def metrics(directory: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in entry.items() if name not in OF_TIME} for entry in entries]


def weights(directory: Path, epoch: int) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(directory / f"epoch_{epoch}_whole.pt", weights_only=True)
    return loaded


def assert_same_weights(one: Path, other: Path, epoch: int) -> None:
    first, second = weights(one, epoch), weights(other, epoch)
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []


@pytest.mark.slow
def test_five_epochs_and_then_ten_are_ten_at_once(corpus: TokenCorpus, whole: Path, tmp_path: Path) -> None:
    run(arguments(corpus, tmp_path, 5))
    run(arguments(corpus, tmp_path, 10))
    assert_same_weights(tmp_path, whole, 9)
    assert losses(tmp_path) == losses(whole)
    assert len(losses(tmp_path)) == 10
    assert metrics(tmp_path) == metrics(whole)
    assert sum("train/loss" in entry for entry in metrics(whole)) >= 10

    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(RefusalError) as refusal:
        run(arguments(corpus, tmp_path, 5))
    (line,) = refusal.value.lines
    assert line == (
        f"error: train_conf.max_epoch: 5 epochs are asked for, and {tmp_path} holds 10"
        f" ({', '.join(f'epoch_{epoch}_whole' for epoch in range(10))}); ask for 10 or more, or take another model_dir"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("updates", [21, 23], ids=["within an epoch", "with all its batches done"])
def test_how_it_goes_may_change_on_the_way(updates: int, corpus: TokenCorpus, whole: Path, tmp_path: Path) -> None:
    run(arguments(corpus, tmp_path, 10, max_steps=updates))
    changed = ("train_conf.log_interval=3", "train_conf.save_per_step=5", "train_conf.keep_best=1")
    run(arguments(corpus, tmp_path, 10, *changed, num_workers=1, prefetch=3))
    assert_same_weights(tmp_path, whole, 9)
    assert losses(tmp_path) == losses(whole)
    epochs = [[entry for entry in metrics(place) if "cv/loss" in entry] for place in (tmp_path, whole)]
    assert epochs[0] == epochs[1]


@pytest.mark.slow
def test_a_folder_without_states_is_refused_by_the_command(
    corpus: TokenCorpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model_dir = tmp_path / "model"
    run(arguments(corpus, model_dir, 2))
    for state in model_dir.glob("*.state.pt"):
        state.unlink()
    before = {path.name: path.read_bytes() for path in model_dir.iterdir() if path.is_file()}
    words = [*arguments(corpus, model_dir, 3).command_line(), "--launcher", "local", "--gpus_per_node", "0"]
    assert main(["train", *words]) == 2
    assert capfd.readouterr().err == (
        f"error: model_dir: {model_dir}: epoch_1_whole cannot be continued: epoch_1_whole.state.pt is not there; start"
        f" from its weights (--checkpoint {model_dir}/epoch_1_whole.pt with another --model_dir), or bring back"
        " epoch_1_whole.state.pt\n"
    )
    assert {path.name: path.read_bytes() for path in model_dir.iterdir() if path.is_file()} == before

    again = [*words[: words.index("--model_dir")], *words[words.index("--model_dir") + 2 :]]
    again += ["--model_dir", str(tmp_path / "another"), "--checkpoint", str(model_dir / "epoch_1_whole.pt")]
    assert main(["train", *again]) == 0
    assert f"starts from {model_dir}/epoch_1_whole.pt" in capfd.readouterr().out


@pytest.mark.slow
def test_processes_refuse_with_the_status_of_a_refusal(
    corpus: TokenCorpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """That states are damaged is seen by the processes alone."""
    run(arguments(corpus, tmp_path, 1))
    state = tmp_path / "epoch_0_whole.state.pt"
    state.write_bytes(state.read_bytes()[:100])
    words = [*arguments(corpus, tmp_path, 2).command_line(), "--launcher", "local", "--gpus_per_node", "0"]
    assert main(["train", *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: model_dir: {tmp_path}: epoch_0_whole cannot be continued: {state.name} is damaged")


@pytest.mark.medium
def test_a_checkpoint_that_is_not_read_is_told(
    corpus: TokenCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(arguments(corpus, tmp_path, 1))
    given = str(tmp_path / "epoch_0_whole.pt")
    run(arguments(corpus, tmp_path, 2, checkpoint=given))
    told = f"--checkpoint {given} is not read: {tmp_path} has a training already; to begin one there, give another"
    assert told in capsys.readouterr().out
