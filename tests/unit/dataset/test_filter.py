"""What the filter says; its decisions are compared with the official ones in tests/golden."""

from __future__ import annotations

import pytest

from cosyflow.config.data import FilterConf
from cosyflow.dataset.filter import filter_utterances
from cosyflow.dataset.index import build_index
from cosyflow.errors import CosyFlowError

EVERYTHING = FilterConf(min_length=0)


def test_dropped_utterances_are_told_with_a_reason(make_index):
    result = filter_utterances(make_index([5, 0, 5, 0]), EVERYTHING, 24000)
    assert result.index.utts.tolist() == ["utt0", "utt2"]
    assert result.describe() == "2 of 4 utterances are used; not 2 with no speech tokens (e.g. utt1)"


def test_low_sample_rates_are_used_only_for_speech_of_that_rate(make_shards, tokenizer):
    index = build_index(str(make_shards()), tokenizer)
    index.sample_rate[3] = 8000
    assert "utt3" not in filter_utterances(index, EVERYTHING, 24000).index.utts
    index.sample_rate[:] = 8000
    assert len(filter_utterances(index, EVERYTHING, 8000).index) == 12


def test_utterances_without_rejected_speech_are_dropped_for_dpo(make_shards, tokenizer):
    index = build_index(str(make_shards()), tokenizer)
    result = filter_utterances(index, EVERYTHING, 16000, rejected=True)
    assert result.index.utts.tolist() == [f"utt{number}" for number in range(0, 12, 2)]


def test_speech_tokens_that_cover_half_of_the_audio_are_dropped_for_every_part(make_index):
    index = make_index([25, 22, 28, 12, 50, 0])  # of 1 s each, 25 tokens a second
    result = filter_utterances(index, EVERYTHING, 24000, token_frame_rate=25)
    assert result.index.utts.tolist() == ["utt0", "utt1", "utt2"]
    assert result.dropped["over 3 speech tokens more or less than their audio"] == ["utt3", "utt4"]


def test_pairs_of_the_same_speech_teach_nothing(make_shards, tokenizer):
    index = build_index(str(make_shards(rejected=lambda number: [number, number + 1, number + 2])), tokenizer)
    assert index.utts[index.equal_pairs].tolist() == ["utt0", "utt7"], "those of three tokens"
    result = filter_utterances(index, EVERYTHING, 16000, rejected=True)
    assert result.dropped == {"rejected speech that is the chosen one": ["utt0", "utt7"]}
    assert not filter_utterances(index, EVERYTHING, 16000).dropped, "the chosen speech alone is as good as any"


def test_nothing_left_is_an_error_that_tells_why(make_index):
    with pytest.raises(CosyFlowError, match=r"no utterance is left to train on: 0 of 3 .* 3 with no speech tokens"):
        filter_utterances(make_index([0, 0, 0]), EVERYTHING, 24000)


def test_shards_without_speech_tokens_are_named(make_shards, tokenizer):
    index = build_index(str(make_shards(leave_out=["speech_token"])), tokenizer)
    with pytest.raises(CosyFlowError, match=r"parquet_000000000\.tar: has no column speech_token"):
        filter_utterances(index, EVERYTHING, 16000)
