"""Training on preferences: what the reference says is computed once and right, and a model learns the preference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cosyflow.config.data import FilterConf
from cosyflow.config.llm import CosyVoice2LMConfig, DPOConfig, Qwen2Config
from cosyflow.config.load import load_config
from cosyflow.config.training import OptimConf, TrainConf
from cosyflow.config.transformer import CosyVoice1LMConfig
from cosyflow.dataset.filter import filter_utterances
from cosyflow.dataset.index import build_index
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.layout import build_batch
from cosyflow.text.tokenizer import build_tokenizer
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.language_data import LanguageModelData
from cosyflow.training.language_model import LanguageModelling, build_language_model
from cosyflow.training.loop import Training, cross_validate, train
from cosyflow.training.objective import Objective
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.preference import PreferenceLearning
from cosyflow.training.preference_data import PreferenceData
from cosyflow.training.ranks import Ranks
from cosyflow.training.reference import Reference
from cosyflow.training.telemetry import Telemetry
from tests.local.token_corpus import REPOSITORY, SAMPLE_RATE, make_token_corpus

ALONE = Ranks(0, 1, torch.device("cpu"))
CONFIG = CosyVoice2LMConfig(
    qwen2=Qwen2Config(
        vocab_size=2048,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
    ),
    speech_token_size=600,
)
CONF = TrainConf(optim_conf=OptimConf(lr=2e-3), tokens_per_step=500, accum_grad=1, max_epoch=1000)
NUM_TRAIN, NUM_DEV = 40, 25

Indexes = tuple[UtteranceIndex, UtteranceIndex]


@dataclass
class Trained:
    """Weights of a model that was trained on the chosen speech for a while, as a file, and how often it was built."""

    path: Path
    times_built: int = 0

    def build(self) -> torch.nn.Module:
        self.times_built += 1
        model = build_language_model(CONFIG)
        model.load_state_dict(torch.load(self.path, weights_only=True))
        return model


@pytest.fixture(scope="module")
def all_utterances(tmp_path_factory: pytest.TempPathFactory) -> Indexes:
    corpus = make_token_corpus(tmp_path_factory.mktemp("corpus"), NUM_TRAIN, NUM_DEV, rejected=True)
    tokenizer = build_tokenizer("cosyvoice2", corpus.qwen2)
    return build_index(corpus.train_list, tokenizer), build_index(corpus.dev_list, tokenizer)


@pytest.fixture(scope="module")
def pairs(all_utterances: Indexes) -> Indexes:
    train_set, dev_set = (
        filter_utterances(index, FilterConf(), SAMPLE_RATE, rejected=True).index for index in all_utterances
    )
    return train_set, dev_set


@pytest.fixture(scope="module")
def weights(pairs: Indexes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    objective = LanguageModelling(build_language_model(CONFIG))
    run(objective, LanguageModelData(*pairs, CONFIG, CONF, False, ALONE, LoaderSettings()), updates=60)
    path = tmp_path_factory.mktemp("reference") / "llm.pt"
    torch.save(objective.model.state_dict(), path)
    return path


@pytest.fixture
def trained(weights: Path) -> Trained:
    return Trained(weights)


def run(objective: Objective, data: LanguageModelData, updates: int) -> None:
    quiet = Telemetry(CONF, ALONE, line=lambda text: None, metrics=lambda update, values: None)
    train(Training(objective, data, CONF, TorchDDP(ALONE)), quiet, None, max_updates=updates)


def preference_data(
    pairs: Indexes, trained: Trained, directory: Path, conf: TrainConf = CONF, tell: Callable[[str], None] = print
) -> PreferenceData:
    reference = Reference(str(trained.path), trained.build, str(directory), tell)
    return PreferenceData(*pairs, CONFIG, conf, False, ALONE, LoaderSettings(), reference)


def is_interleaved(batch: PackedBatch) -> list[bool]:
    return [bool((batch.target[batch.sequence == n] == CONFIG.layout.fill).any()) for n in range(batch.num_sequences)]


@pytest.mark.medium
def test_a_batch_brings_what_the_reference_says_of_its_layouts(
    pairs: Indexes, trained: Trained, tmp_path: Path
) -> None:
    data = preference_data(pairs, trained, tmp_path)
    model = trained.build().eval()
    seen = set()
    for batch in [*data.batches(0, 0), *data.batches(1, 0), *data.validation_batches()]:
        assert batch is not None
        with torch.no_grad():
            torch.testing.assert_close(model(batch, sequence_logprob=True).per_sequence_logprob, batch.reference)
        chosen, rejected = torch.tensor(is_interleaved(batch)).unflatten(0, (2, -1)).tolist()
        assert chosen == rejected
        assert batch.num_tokens <= CONF.tokens_per_step
        seen.update(chosen)
    assert seen == {False, True}


def test_the_reference_is_measured_once(pairs: Indexes, trained: Trained, tmp_path: Path) -> None:
    first = preference_data(pairs, trained, tmp_path)
    again = preference_data(pairs, trained, tmp_path)
    assert trained.times_built == 1
    assert first.fingerprint(0) == again.fingerprint(0)
    one, other = next(first.batches(0, 0)), next(again.batches(0, 0))
    assert one is not None
    assert other is not None
    assert torch.equal(one.reference, other.reference)


def test_a_damaged_file_is_measured_again(pairs: Indexes, trained: Trained, tmp_path: Path) -> None:
    preference_data(pairs, trained, tmp_path)
    for file in tmp_path.glob("reference_*.npy"):
        file.write_bytes(file.read_bytes()[:50])
    preference_data(pairs, trained, tmp_path)
    assert trained.times_built == 2


def test_another_reference_is_measured_anew(pairs: Indexes, trained: Trained, tmp_path: Path) -> None:
    other = Trained(tmp_path / "other.pt")
    torch.manual_seed(1)
    torch.save(build_language_model(CONFIG).state_dict(), other.path)
    fingerprints = {preference_data(pairs, model, tmp_path).fingerprint(0) for model in (trained, other)}
    assert other.times_built == 1
    assert len(fingerprints) == 2


def test_a_reference_of_broken_weights_is_named(pairs: Indexes, trained: Trained, tmp_path: Path) -> None:
    broken = Trained(tmp_path / "broken.pt")
    torch.save({name: value * float("nan") for name, value in trained.build().state_dict().items()}, broken.path)
    with pytest.raises(CosyFlowError, match=r"utterance train_001: .* not finite; look at --ref_model"):
        preference_data(pairs, broken, tmp_path)


def test_a_policy_equal_to_its_reference_prefers_nothing(pairs: Indexes, trained: Trained, tmp_path: Path) -> None:
    data = preference_data(pairs, trained, tmp_path)
    start = cross_validate(PreferenceLearning(trained.build(), DPOConfig()), data, ALONE)
    assert start["dpo_loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert start["chosen_reward"] == pytest.approx(0.0, abs=1e-4)
    assert start["loss"] == pytest.approx(start["dpo_loss"] + start["sft_loss"])


def test_dropout_does_not_look_like_a_preference() -> None:
    config = load_config(REPOSITORY / "conf" / "cosyvoice.tiny.yaml").llm
    assert isinstance(config, CosyVoice1LMConfig)
    assert config.llm.dropout_rate > 0
    draw = np.random.default_rng(0)
    examples = [
        Example(
            f"utterance {number}",
            draw.integers(0, 3000, 5),
            draw.integers(0, 4000, 30),
            embedding=draw.normal(size=192).astype(np.float32),
            rejected=draw.integers(0, 4000, 30),
        )
        for number in range(3)
    ]
    batch = build_batch(examples, np.zeros(3, bool), config)
    torch.manual_seed(0)
    model = build_language_model(config)
    with torch.no_grad():
        equal = model.eval()(batch, sequence_logprob=True).per_sequence_logprob
        told = PreferenceLearning(model, DPOConfig()).train().compute(replace(batch, reference=equal))
    assert told.sums["chosen_reward"].item() == pytest.approx(0.0, abs=1e-4)
    assert told.sums["rejected_reward"].item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.medium
def test_200_updates_teach_unseen_pairs(pairs: Indexes, trained: Trained, tmp_path: Path) -> None:
    data = preference_data(pairs, trained, tmp_path)
    objective = PreferenceLearning(trained.build(), DPOConfig(beta=0.1))
    run(objective, data, updates=200)
    end = cross_validate(objective, data, ALONE)
    assert end["reward_acc"] > 0.9
    assert end["margin"] > 1
    assert end["chosen_reward"] >= 0, "chosen speech has not become less likely"


def test_validation_does_not_depend_on_packing(pairs: Indexes, trained: Trained, tmp_path: Path) -> None:
    torch.manual_seed(2)
    objective = PreferenceLearning(build_language_model(CONFIG), DPOConfig())
    alone, packed = (
        cross_validate(objective, preference_data(pairs, trained, tmp_path, conf), ALONE)
        for conf in (TrainConf(tokens_per_step=200), TrainConf(tokens_per_step=1500))
    )
    assert packed == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_utterances_without_rejected_speech_are_left_out_and_named(all_utterances: Indexes) -> None:
    result = filter_utterances(all_utterances[0], FilterConf(), SAMPLE_RATE, rejected=True)
    assert result.describe() == (
        f"{NUM_TRAIN - 1} of {NUM_TRAIN} utterances are used; not 1 with no rejected speech tokens (e.g. train_000)"
    )


def test_data_without_rejected_speech_is_refused(tmp_path: Path) -> None:
    corpus = make_token_corpus(tmp_path, num_train=4, num_dev=2)
    index = build_index(corpus.train_list, build_tokenizer("cosyvoice2", corpus.qwen2))
    with pytest.raises(
        CosyFlowError, match=r"parquet_000000000.tar: has no column reject_speech_token; make it again with rejected"
    ):
        filter_utterances(index, FilterConf(), SAMPLE_RATE, rejected=True)
