"""A training goes on with any number of ranks, also within an epoch: what an update is does not depend on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.cli import main
from cosyflow.training.process import run
from tests.local.jobs import final_state, logged, train_command
from tests.local.speech_corpus import make_speech_corpus, shortest_speech
from tests.local.test_acoustic_training import arguments
from tests.local.token_corpus import TokenCorpus

STOPPED_AT = 7
"""Within the third epoch, of which one update is done."""
FOLLOWED = 20


@pytest.fixture(scope="module")
def stopped(corpus: TokenCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of two ranks that ended within an epoch."""
    directory = tmp_path_factory.mktemp("stopped")
    assert main(train_command(corpus, directory, 2, STOPPED_AT)) == 0
    assert not list_checkpoints(str(directory))[-1].is_whole_epoch
    return directory


def follow(corpus: TokenCorpus, stopped: Path, directory: Path, ranks: int) -> list[float]:
    """Losses of the updates after the stop."""
    shutil.copytree(stopped, directory)
    (directory / "result.json").unlink()
    assert main(train_command(corpus, directory, ranks, STOPPED_AT + FOLLOWED)) == 0
    losses = dict(logged(directory))
    assert sorted(losses) == list(range(1, STOPPED_AT + FOLLOWED + 1))
    return [losses[update] for update in range(STOPPED_AT + 1, STOPPED_AT + FOLLOWED + 1)]


@pytest.mark.slow
def test_one_two_or_four_ranks_go_on_from_any_update_alike(corpus: TokenCorpus, stopped: Path, tmp_path: Path) -> None:
    """To 1e-6 of the losses in fp32; that it is to the bit with the same number of ranks shows test_resume.py."""
    expected = follow(corpus, stopped, tmp_path / "2", 2)
    weights, _ = final_state(tmp_path / "2")
    for ranks in (1, 4):
        assert follow(corpus, stopped, tmp_path / str(ranks), ranks) == pytest.approx(expected, rel=1e-6)
        others, _ = final_state(tmp_path / str(ranks))
        for name, tensor in weights.items():
            torch.testing.assert_close(others[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["flow", pytest.param("hifigan", marks=pytest.mark.long)])
def test_flow_and_vocoder_go_on_with_another_number_of_ranks(model: str, tmp_path: Path) -> None:
    corpus = make_speech_corpus(tmp_path / "corpus", "cosyvoice2", shortest_speech(8), f0="fast")
    section = "train_conf_gan" if model == "hifigan" else "train_conf"
    settings = (f"{section}.accum_grad=2", f"{section}.max_epoch=20", "train_conf_gan.frames_per_step=104")

    def train(directory: Path, ranks: int, updates: int) -> list[float]:
        asked = arguments(corpus, directory, model, *settings, max_steps=updates)
        if ranks == 1:
            run(asked)
        else:
            assert main(["train", *asked.command_line(), "--launcher", "local", "--gpus_per_node", str(ranks)]) == 0
        return [loss for _, loss in sorted(logged(directory))]

    whole = train(tmp_path / "whole", 1, 5)
    train(tmp_path / "parts", 1, 2)
    assert not list_checkpoints(str(tmp_path / "parts"))[-1].is_whole_epoch
    parts = train(tmp_path / "parts", 2, 5)
    assert parts[:2] == whole[:2]
    assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_more_ranks_than_batches_of_an_update_are_refused(
    corpus: TokenCorpus, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(train_command(corpus, tmp_path, 2, 1, "train_conf.accum_grad=1")) == 2
    assert capfd.readouterr().err == (
        "error: train_conf.accum_grad: an update has 1 batches for 2 processes; give 2 or a multiple of it (each batch"
        " that is added makes an update larger), or start fewer processes\n"
    )
