"""The language model of every version trains through the same command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cosyflow.checkpoint.official import load_official
from cosyflow.cli import main
from cosyflow.config.load import load_config
from cosyflow.standins.text_models import make_whisper_ranks
from cosyflow.training.language_model import build_language_model
from tests.local.token_corpus import REPOSITORY, TokenCorpus, make_token_corpus

SETTINGS = ("train_conf.max_epoch=3", "train_conf.tokens_per_step=400", "filter.min_length=1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    return make_token_corpus(tmp_path_factory.mktemp("corpus"), num_train=12, num_dev=4)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["cosyvoice", "cosyvoice2", "cosyvoice3"])
def test_every_version_trains_from_scratch_and_from_its_checkpoint(
    version: str, corpus: TokenCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = REPOSITORY / "conf" / f"{version}.tiny.yaml"
    make_whisper_ranks(tmp_path / "multilingual.tiktoken")
    tokenizer = str(tmp_path) if version == "cosyvoice" else corpus.qwen2
    if version == "cosyvoice":  # whose tokens are twice as many
        corpus = make_token_corpus(tmp_path / "corpus", 12, 4, tokens_per_second=50)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    common = ["train", "--config", str(recipe), "--train_data", corpus.train_list, "--cv_data", corpus.dev_list]
    common += ["--tokenizer_path", tokenizer, *settings]

    assert main([*common, "--model_dir", str(tmp_path / "scratch")]) == 0
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if not line.startswith("["))
    assert float(told["train_loss_last"]) < float(told["train_loss_first"])

    weights = tmp_path / "scratch" / "epoch_2_whole.pt"
    model = build_language_model(load_config(recipe).llm)
    load_official(model, weights)  # exactly the official keys
    assert (
        main([*common, "--model_dir", str(tmp_path / "again"), "--checkpoint", str(weights), "--max_steps", "1"]) == 0
    )
    log = (tmp_path / "again" / "train.log").read_text()
    assert f"starts from {weights}" in log
    after_one_step = torch.load(next((tmp_path / "again").glob("epoch_0_*.pt")), weights_only=True)
    assert after_one_step.keys() == model.state_dict().keys()
