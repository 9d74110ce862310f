"""The train command with DeepSpeed: killed and continued, under either engine, with and without the optimizer."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from cosyflow.backends import emulates_bfloat16
from cosyflow.checkpoint.official import load_official
from cosyflow.cli import main
from cosyflow.config.load import load_config
from cosyflow.training.language_model import build_language_model
from cosyflow.training.process import run
from tests.local.jobs import SMALL_MODEL, begin, descendants, final_state, logged, wait_for_update
from tests.local.speech_corpus import make_speech_corpus, shortest_speech
from tests.local.test_acoustic_training import arguments as acoustic
from tests.local.test_resume import options
from tests.local.token_corpus import RECIPE, TokenCorpus

pytestmark = pytest.mark.slow
DEEPSPEED = ["--train_engine", "deepspeed"]


@pytest.fixture(scope="module")
def whole(corpus: TokenCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training by two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([*options(corpus, folder), *DEEPSPEED]) == 0
    return folder


def zero(folder: Path, stage: int) -> list[str]:
    """Options of an engine of a stage of ZeRO."""
    file = folder.parent / f"zero{stage}.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return [*DEEPSPEED, "--deepspeed_config", str(file)]


def largest_difference(one: Path, other: Path) -> float:
    (ours, _), (theirs, _) = final_state(one), final_state(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_killed_training_ends_with_the_same_weights(corpus: TokenCorpus, whole: Path, tmp_path: Path) -> None:
    process = begin([*options(corpus, tmp_path, max_steps=100), *DEEPSPEED])
    wait_for_update(tmp_path, 10, process)
    for member in descendants(process.pid):
        os.kill(member, signal.SIGKILL)
    process.wait()
    assert main([*options(corpus, tmp_path), *DEEPSPEED]) == 0
    (weights, state), (again, state_again) = final_state(whole), final_state(tmp_path)
    assert [name for name, tensor in weights.items() if not torch.equal(tensor, again[name])] == []
    moments, moments_again = (s["optimizer"]["state"] for s in (state, state_again))
    assert all(torch.equal(moments[i]["exp_avg_sq"], moments_again[i]["exp_avg_sq"]) for i in moments)
    assert logged(whole) == logged(tmp_path)


def test_a_run_goes_on_under_the_other_engine(corpus: TokenCorpus, whole: Path, tmp_path: Path) -> None:
    """Which also has ZeRO 3 on a language model, whose output layer shares its table."""
    folder = tmp_path / "model"
    assert main(options(corpus, folder, max_steps=10)) == 0
    assert main([*options(corpus, folder), *zero(folder, 3)]) == 0
    assert largest_difference(whole, folder) < 1e-5


def test_what_a_run_leaves_is_official(whole: Path) -> None:
    recipe = load_config(RECIPE, SMALL_MODEL)
    epochs = sorted(whole.glob("epoch_*_whole.pt"))
    assert epochs
    load_official(build_language_model(recipe.llm), epochs[-1])  # type: ignore[attr-defined]


@pytest.mark.long
@pytest.mark.skipif(emulates_bfloat16(), reason="this processor does not multiply bfloat16")
def test_without_the_optimizer_a_run_goes_on_from_its_weights(corpus: TokenCorpus, tmp_path: Path) -> None:
    """Also in bfloat16, where weights and checkpoints stay float32."""
    light = [*DEEPSPEED, "--deepspeed.save_states", "model_only", "--gpus_per_node", "1"]
    light += ["--set", "train_conf.dtype=bfloat16"]
    assert main([*options(corpus, tmp_path, max_steps=5), *light]) == 0
    weights, state = final_state(tmp_path)
    assert state["optimizer"] == {}
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert main([*options(corpus, tmp_path, max_steps=7), *light]) == 0
    assert "the checkpoint has no optimizer: it begins anew" in (tmp_path / "train.log").read_text()
    assert [update for update, _ in logged(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("version", "stage"),
    [
        ("cosyvoice2", 3),
        pytest.param("cosyvoice2", 2, marks=pytest.mark.long),
        pytest.param("cosyvoice", 3, marks=pytest.mark.long),
        pytest.param("cosyvoice3", 3, marks=pytest.mark.long),
    ],
)
def test_the_flow_trains_as_by_torch_ddp(version: str, stage: int, tmp_path: Path) -> None:
    speech = make_speech_corpus(tmp_path / "speech", version, shortest_speech(4), f0="fast")
    run(acoustic(speech, tmp_path / "torch", "flow"))
    words = acoustic(speech, tmp_path / "zero", "flow").command_line()
    assert main(["train", *words, *zero(tmp_path / "zero", stage), "--gpus_per_node", "1"]) == 0
    assert largest_difference(tmp_path / "torch", tmp_path / "zero") < 1e-5
