"""Flow and vocoder of every version train on recorded speech through the command, and go on where they stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.checkpoint.official import load_official
from cosyflow.cli import main
from cosyflow.config.load import load_config
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.training.arguments import Arguments
from cosyflow.training.process import run
from tests.local.speech_corpus import SpeechCorpus, make_speech_corpus, shortest_speech

VERSIONS = (
    "cosyvoice2",
    pytest.param("cosyvoice", marks=pytest.mark.long),
    pytest.param("cosyvoice3", marks=pytest.mark.long),
)


def arguments(corpus: SpeechCorpus, directory: Path, model: str, *overrides: str, **changes: object) -> Arguments:
    section = "train_conf_gan" if model == "hifigan" else "train_conf"
    smaller = {
        "flow": ["train_conf.frames_per_step=1000"],
        "hifigan": [
            "hifigan.generator.base_channels=16",
            "hifigan.generator.f0_channels=16",
            "hifigan.discriminator.periods=[2]",
            "hifigan.discriminator.period_channels=[4, 8]",
        ],
    }[model]
    return Arguments(
        config=str(corpus.recipe),
        train_data=corpus.data_list,
        cv_data=corpus.data_list,
        model_dir=str(directory),
        model=model,
        tokenizer_path=corpus.tokenizer,
        num_workers=0,
        overrides=(f"{section}.max_epoch=2", f"{section}.log_interval=1", *smaller, *overrides),
        **changes,  # type: ignore[arg-type]
    )


def newest_weights(directory: Path) -> dict[str, torch.Tensor]:
    return torch.load(list_checkpoints(str(directory))[-1].weights, weights_only=True)


@pytest.fixture(scope="module", params=VERSIONS)
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpeechCorpus:
    directory = tmp_path_factory.mktemp(request.param)
    return make_speech_corpus(directory, request.param, shortest_speech(4), f0="fast")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["flow", "hifigan"])
def test_a_resumed_run_ends_with_the_same_weights(corpus: SpeechCorpus, model: str, tmp_path: Path) -> None:
    run(arguments(corpus, tmp_path / "whole", model))
    run(arguments(corpus, tmp_path / "parts", model, max_steps=1))
    run(arguments(corpus, tmp_path / "parts", model))
    whole, parts = (torch.load(tmp_path / name / "epoch_1_whole.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    recipe = load_config(corpus.recipe, arguments(corpus, tmp_path, model).overrides)
    built = build_flow(recipe.flow) if model == "flow" else HiFiGan(recipe.hifigan)
    load_official(built, tmp_path / "whole" / "epoch_1_whole.pt")  # exactly the official keys
    losses = yaml.safe_load((tmp_path / "whole" / "epoch_1_whole.yaml").read_text())["loss_dict"]
    assert all(value >= 0 for value in losses.values())


@pytest.mark.slow
def test_a_generator_alone_is_started_from_and_waits_for_its_discriminators(
    corpus: SpeechCorpus, tmp_path: Path
) -> None:
    recipe = load_config(corpus.recipe, arguments(corpus, tmp_path, "hifigan").overrides)
    weights = HiFTGenerator(recipe.hifigan.generator).state_dict()
    for prefix in ("", "generator."):
        released = tmp_path / f"hift{prefix}pt"
        torch.save({prefix + name: value for name, value in weights.items()}, released)
        directory = tmp_path / f"model{prefix}"
        warmup = "train_conf_gan.discriminator_warmup=1"
        run(arguments(corpus, directory, "hifigan", warmup, checkpoint=str(released), max_steps=1))
        trained = newest_weights(directory)
        assert all(torch.equal(trained[f"generator.{name}"], value) for name, value in weights.items())
        run(arguments(corpus, directory, "hifigan", warmup, checkpoint=str(released), max_steps=2))
        trained = newest_weights(directory)
        assert not all(torch.equal(trained[f"generator.{name}"], value) for name, value in weights.items())


@pytest.mark.slow
def test_the_command_trains_two_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = make_speech_corpus(tmp_path / "corpus", "cosyvoice2", shortest_speech(4), f0="fast")
    asked = arguments(corpus, tmp_path / "model", "hifigan", max_steps=2)
    assert main(["train", *asked.command_line(), "--gpus_per_node", "2"]) == 0
    assert "train_loss_last" in capsys.readouterr().out
