"""The language-model objective on real shards: what is in the batches, and that the number of ranks does not show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cosyflow.config.data import FilterConf
from cosyflow.config.llm import CosyVoice2LMConfig, Qwen2Config
from cosyflow.config.training import OptimConf, TrainConf
from cosyflow.dataset.filter import filter_utterances
from cosyflow.dataset.index import build_index
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.models.llm.batch import PackedBatch
from cosyflow.text.tokenizer import build_tokenizer
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.language_data import LanguageModelData
from cosyflow.training.language_model import LanguageModelling, build_language_model
from cosyflow.training.loop import Updater, cross_validate
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.ranks import Ranks
from tests.local.token_corpus import SAMPLE_RATE, make_token_corpus

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
CONFIG = CosyVoice2LMConfig(
    qwen2=Qwen2Config(
        vocab_size=2048,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
    )
)
CONF = TrainConf(optim_conf=OptimConf(lr=1e-3), tokens_per_step=150, accum_grad=1)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> tuple[UtteranceIndex, UtteranceIndex]:
    corpus = make_token_corpus(tmp_path_factory.mktemp("corpus"), num_train=13, num_dev=5)
    tokenizer = build_tokenizer("cosyvoice2", corpus.qwen2)
    train, dev = (
        filter_utterances(build_index(data_list, tokenizer), FilterConf(), SAMPLE_RATE).index
        for data_list in (corpus.train_list, corpus.dev_list)
    )
    return train, dev


def data(
    indexes: tuple[UtteranceIndex, UtteranceIndex], ranks: Ranks = ALONE, conf: TrainConf = CONF
) -> LanguageModelData:
    return LanguageModelData(*indexes, CONFIG, conf, False, ranks, LoaderSettings())


def names(batches: list[PackedBatch | None]) -> list[str]:
    return [name for batch in batches if batch is not None for name in batch.utterances]


def test_an_epoch_has_every_utterance_once_over_all_ranks(indexes: tuple[UtteranceIndex, UtteranceIndex]) -> None:
    shares = [list(data(indexes, Ranks(rank, 3, CPU)).batches(epoch=4, start=0)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(name for share in shares for name in names(share)) == sorted(indexes[0].utts)
    assert all(batch.num_tokens <= CONF.tokens_per_step for share in shares for batch in share if batch)


def test_batches_from_a_start_on_are_the_rest_of_the_epoch(indexes: tuple[UtteranceIndex, UtteranceIndex]) -> None:
    whole, rest = list(data(indexes).batches(2, 0)), list(data(indexes).batches(2, 3))
    for expected, batch in zip(whole[3:], rest, strict=True):
        assert expected is not None
        assert batch is not None
        assert torch.equal(expected.index, batch.index)
        assert torch.equal(expected.target, batch.target)


def test_layouts_change_between_epochs_in_training_only(indexes: tuple[UtteranceIndex, UtteranceIndex]) -> None:
    def layouts(batches: list[PackedBatch | None]) -> dict[str, tuple[int, ...]]:
        found = {}
        for batch in batches:
            assert batch is not None
            for number, name in enumerate(batch.utterances):
                found[name] = tuple(batch.target[batch.sequence == number].tolist())
        return found

    shared = data(indexes)
    assert layouts(list(shared.batches(0, 0))) != layouts(list(shared.batches(1, 0)))
    assert layouts(list(shared.validation_batches())) == layouts(list(shared.validation_batches()))


def test_the_fingerprint_tells_other_batches(indexes: tuple[UtteranceIndex, UtteranceIndex]) -> None:
    same = data(indexes).fingerprint(1)
    assert data(indexes).fingerprint(1) == same
    others = [
        data(indexes).fingerprint(2),
        data(indexes, conf=TrainConf(tokens_per_step=200, accum_grad=1)).fingerprint(1),
        data(indexes, conf=TrainConf(tokens_per_step=150, accum_grad=1, seed=1)).fingerprint(1),
        data((indexes[0].select(np.arange(12)), indexes[1])).fingerprint(1),
    ]
    assert same not in others
    assert len(set(others)) == len(others)


def test_validation_does_not_depend_on_packing(indexes: tuple[UtteranceIndex, UtteranceIndex]) -> None:
    torch.manual_seed(0)
    objective = LanguageModelling(build_language_model(CONFIG))
    alone, packed = (
        cross_validate(objective, data(indexes, conf=TrainConf(tokens_per_step=budget)), ALONE) for budget in (90, 600)
    )
    assert alone["loss"] == pytest.approx(packed["loss"], rel=1e-6)
    assert alone["acc"] == packed["acc"]


def test_operations_are_counted(indexes: tuple[UtteranceIndex, UtteranceIndex]) -> None:
    objective = LanguageModelling(build_language_model(CONFIG))
    batch = next(data(indexes).batches(0, 0))
    assert batch is not None
    (report,) = Updater(objective, CONF, TorchDDP(ALONE)).update([batch], update=0)
    assert report.flops == objective.flops(batch) > 0


@pytest.mark.medium
def test_the_loop_imports_with_torch_transformers_and_numpy_alone() -> None:
    program = """
import sys
for name in ("pyarrow", "pydantic", "mlflow", "tensorboard", "kfp", "deepspeed", "onnxruntime", "torchaudio"):
    sys.modules[name] = None
import cosyflow.models, cosyflow.training.loop, cosyflow.training.language_model, cosyflow.checkpoint.writer
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
