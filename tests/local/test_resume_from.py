"""A new training goes on from another's checkpoint with its whole state, under its own settings: --resume_from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cosyflow.cli import main
from tests.local.token_corpus import RECIPE, TokenCorpus

SMALL_MODEL = (
    "llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48",
    "train_conf.tokens_per_step=300",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_epochs(corpus: TokenCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two epochs") / "model"
    assert train(corpus, folder, 2) == 0
    return folder


def train(corpus: TokenCorpus, folder: Path, epochs: int, *more: str) -> int:
    settings = [word for setting in (*SMALL_MODEL, f"train_conf.max_epoch={epochs}") for word in ("--set", setting)]
    lists = ["--train_data", corpus.train_list, "--cv_data", corpus.dev_list, "--tokenizer_path", corpus.qwen2]
    here = ["--model_dir", str(folder), "--gpus_per_node", "0", "--num_workers", "0"]
    return main(["train", "--config", str(RECIPE), *lists, *here, *settings, *more])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tag = json.loads((folder / "result.json").read_text())["checkpoint"]
    loaded: dict[str, torch.Tensor] = torch.load(folder / f"{tag}.pt", weights_only=True)
    return loaded


def test_with_equal_settings_it_is_the_training_that_would_have_gone_on(
    corpus: TokenCorpus, two_epochs: Path, tmp_path: Path
) -> None:
    assert train(corpus, tmp_path / "three", 3) == 0
    start = str(two_epochs / "epoch_1_whole.pt")
    assert train(corpus, tmp_path / "new", 3, "--resume_from", start) == 0
    expected, found = weights(tmp_path / "three"), weights(tmp_path / "new")
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []
    assert sorted(path.name for path in (tmp_path / "new").glob("*_whole.pt")) == ["epoch_2_whole.pt"]


def test_settings_are_those_of_the_new_training(corpus: TokenCorpus, two_epochs: Path, tmp_path: Path) -> None:
    changed = ("--set", "train_conf.optim_conf.weight_decay=0.3", "--set", "train_conf.optim_conf.lr=0.005")
    start = str(two_epochs / "epoch_1_whole.pt")
    assert train(corpus, tmp_path, 3, "--resume_from", start, *changed) == 0
    state = torch.load(tmp_path / "epoch_2_whole.state.pt", weights_only=True)
    (group,) = state["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.3


@pytest.mark.parametrize(
    ("file", "epochs", "complaint"),
    [
        ("epoch_9_whole.pt", 3, "resume_from"),  # not there
        ("epoch_1_whole.pt", 2, "train_conf.max_epoch"),  # nothing left to train
    ],
)
def test_what_cannot_go_on_is_refused(
    corpus: TokenCorpus,
    two_epochs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    epochs: int,
    complaint: str,
) -> None:
    assert train(corpus, tmp_path / "new", epochs, "--resume_from", str(two_epochs / file)) == 2
    assert capsys.readouterr().err.startswith(f"error: {complaint}: ")
    assert not list(tmp_path.rglob("*.pt"))
