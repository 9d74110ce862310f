"""Preference training from parquet with rejected speech: it learns, a resumed run ends alike, several ranks agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cosyflow.cli import main
from cosyflow.config.load import load_config
from cosyflow.standins.text_models import make_whisper_ranks
from cosyflow.training.arguments import Arguments
from cosyflow.training.language_model import build_language_model
from cosyflow.training.process import run
from tests.local.token_corpus import REPOSITORY, TokenCorpus, make_token_corpus

SETTINGS = (
    "train_conf.tokens_per_step=600",
    "train_conf.save_per_step=5",
    "train_conf.scheduler=constantlr",
    "filter.min_length=1",
    "dpo.beta=0.1",
)
SMALL_QWEN2 = ("llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    return make_token_corpus(tmp_path_factory.mktemp("corpus"), num_train=16, num_dev=6, rejected=True)


def arguments(version: str, corpus: TokenCorpus, tokenizer: str, model_dir: Path, **options: object) -> Arguments:
    return Arguments(
        config=str(REPOSITORY / "conf" / f"{version}.tiny.yaml"),
        train_data=corpus.train_list,
        cv_data=corpus.dev_list,
        model_dir=str(model_dir),
        tokenizer_path=tokenizer,
        num_workers=0,
        overrides=(*SETTINGS, *(() if version == "cosyvoice" else SMALL_QWEN2)),
        **options,  # type: ignore[arg-type]
    )


def write_start(given: Arguments, path: Path) -> str:
    """Official weights to start from."""
    torch.manual_seed(0)
    torch.save(build_language_model(load_config(given.config, given.overrides).llm).state_dict(), path)
    return str(path)


def last_weights(model_dir: Path) -> dict[str, torch.Tensor]:
    tag = json.loads((model_dir / "result.json").read_text())["checkpoint"]
    weights: dict[str, torch.Tensor] = torch.load(model_dir / f"{tag}.pt", weights_only=True)
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("version", ["cosyvoice", "cosyvoice2", "cosyvoice3"])
def test_preferences_are_learnt_and_a_resumed_run_ends_alike(
    version: str, corpus: TokenCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_whisper_ranks(tmp_path / "multilingual.tiktoken")
    tokenizer = str(tmp_path) if version == "cosyvoice" else corpus.qwen2
    if version == "cosyvoice":  # whose tokens are twice as many
        corpus = make_token_corpus(tmp_path / "corpus", 16, 6, rejected=True, tokens_per_second=50)
    start = write_start(arguments(version, corpus, tokenizer, tmp_path), tmp_path / "llm.pt")

    def optimise(model_dir: Path, max_steps: int) -> None:
        options = {"dpo": True, "checkpoint": start, "max_steps": max_steps}
        assert run(arguments(version, corpus, tokenizer, model_dir, **options)).finished

    optimise(tmp_path / "whole", 20)
    optimise(tmp_path / "halted", 8)
    told = capsys.readouterr().out
    assert "15 of 16 utterances are used; not 1 with no rejected speech tokens (e.g. train_000)" in told
    optimise(tmp_path / "halted", 20)
    assert "with the reference" not in capsys.readouterr().out, "it was measured at the first start"

    whole, halted = last_weights(tmp_path / "whole"), last_weights(tmp_path / "halted")
    assert whole.keys() == halted.keys()
    assert [name for name in whole if not torch.equal(whole[name], halted[name])] == []

    entries = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    epochs = [entry for entry in entries if "cv/loss" in entry]
    named = {"loss", "dpo_loss", "sft_loss", "chosen_reward", "rejected_reward", "reward_acc", "margin"}
    for kind in ("train_epoch/", "cv/"):
        assert {name.removeprefix(kind) for name in epochs[-1] if name.startswith(kind)} == named
    assert epochs[-1]["train_epoch/margin"] > epochs[0]["train_epoch/margin"]


@pytest.mark.slow
def test_two_processes_measure_the_reference_as_one_does(corpus: TokenCorpus, tmp_path: Path) -> None:
    start = write_start(arguments("cosyvoice2", corpus, corpus.qwen2, tmp_path), tmp_path / "llm.pt")
    options = {"dpo": True, "ref_model": start, "max_steps": 1}
    run(arguments("cosyvoice2", corpus, corpus.qwen2, tmp_path / "one", **options))
    words = arguments("cosyvoice2", corpus, corpus.qwen2, tmp_path / "two", **options).command_line()
    assert main(["train", *words, "--gpus_per_node", "2"]) == 0
    files = sorted(path.name for path in (tmp_path / "one").glob("reference_*.npy"))
    assert len(files) == 2, "of the training and of the validation pairs"
    for file in files:
        alone, together = (np.load(tmp_path / folder / file) for folder in ("one", "two"))
        np.testing.assert_allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dpo"], "dpo: needs a reference; name it as ref_model, or start from a checkpoint"),
        (
            ["--ref_model", str(REPOSITORY / "README.md")],
            "ref_model: has a meaning with dpo only; leave it out, or ask for dpo",
        ),
        (["--dpo", "--ref_model", "absent.pt"], "ref_model: absent.pt: no such file or folder; name one that is there"),
        (
            ["--dpo", "--ref_model", str(REPOSITORY / "README.md"), "--model", "flow"],
            "dpo: trains the llm, not the flow; leave it out, or take model llm",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    options: list[str], message: str, corpus: TokenCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments("cosyvoice2", corpus, corpus.qwen2, tmp_path).command_line()
    assert main(["train", *words, *options]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
