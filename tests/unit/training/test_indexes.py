"""What of the data a training does not use, or uses twice, is told and noted."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.config.load import load_config
from cosyflow.dataset.shard import ShardNotes, open_shard, write_shard
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.training.arguments import Arguments
from cosyflow.training.indexes import open_indexes
from cosyflow.training.setup import Setup
from tests.local.token_corpus import RECIPE, TokenCorpus, make_token_corpus
from tests.unit.training.toy import ALONE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    return make_token_corpus(tmp_path_factory.mktemp("corpus"), num_train=8, num_dev=4)


def setup_of(corpus: TokenCorpus, train_data: str, cv_data: str) -> Setup:
    arguments = Arguments(
        config=str(RECIPE), train_data=train_data, cv_data=cv_data, model_dir="m", qwen_pretrain_path=corpus.qwen2
    )
    return Setup(arguments, load_config(str(RECIPE)), ALONE)


def as_it_is(index: UtteranceIndex) -> UtteranceIndex:
    return index


def test_tokens_of_half_the_audio_are_told_and_noted(
    corpus: TokenCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_shard(Path(corpus.train_list).read_text().split()[0]) as file:
        columns, notes = file.read().to_pydict(), ShardNotes.of(file.schema_arrow.metadata)
    assert notes
    notes.num_samples[1] *= 2
    write_shard(str(tmp_path / "shard.parquet"), columns, notes)
    (tmp_path / "data.list").write_text(f"{tmp_path}/shard.parquet\n")
    setup = setup_of(corpus, str(tmp_path / "data.list"), corpus.dev_list)
    train, _ = open_indexes(setup, as_it_is)
    assert train.utts.tolist() == ["train_000", "train_002", "train_003"]
    reason = "over 3 speech tokens more or less than their audio"
    assert f"3 of 4 utterances are used; not 1 with {reason} (e.g. train_001)" in capsys.readouterr().out
    assert setup.data_notes["unused_to_train"] == {reason: 1}


def test_validating_on_what_is_trained_on_is_a_warning(corpus: TokenCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    setup = setup_of(corpus, corpus.train_list, corpus.train_list)
    open_indexes(setup, as_it_is)
    assert "warning: 8 of 8 utterances to validate on are trained on too" in capsys.readouterr().out
    assert setup.data_notes["validated_and_trained_on"] == 8

    setup = setup_of(corpus, corpus.train_list, corpus.dev_list)
    open_indexes(setup, as_it_is)
    assert "warning" not in capsys.readouterr().out
    assert setup.data_notes == {"unused_to_train": {}, "unused_to_validate": {}, "validated_and_trained_on": 0}
