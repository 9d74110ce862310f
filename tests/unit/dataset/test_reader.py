"""Reading utterances, alone and through worker processes."""

from __future__ import annotations

import os
import pickle
import signal

import numpy as np
import pytest

from cosyflow.dataset import shard as shard_module
from cosyflow.dataset.batching import TokenBudget
from cosyflow.dataset.index import build_index
from cosyflow.dataset.loader import build_loader
from cosyflow.dataset.plan import plan_epoch
from cosyflow.dataset.reader import UtteranceReader
from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.unexpected import UnexpectedError

BUDGET = TokenBudget(20, lambda index: index.speech_len)


@pytest.fixture
def index(make_shards, tokenizer):
    return build_index(str(make_shards()), tokenizer)


def utterances_and_speech(utterances):
    return [(utterance.utt, utterance.speech_token.tolist()) for utterance in utterances]


def test_reads_rows_in_the_order_asked_for(index):
    utterances = UtteranceReader(index).read([9, 0, 10])
    assert [utterance.utt for utterance in utterances] == ["utt9", "utt0", "utt10"]
    first = utterances[0]
    assert first.text == "text 9"
    assert bytes(first.text_token.tolist()) == b"text 9"
    assert first.speech_token.tolist() == [9, 10, 11, 12, 13]
    assert first.speech_token.dtype == first.text_token.dtype == np.int64
    assert first.instruct_token is None
    assert first.reject_speech_token is None


def test_embeddings_are_scaled_to_length_one(index):
    (utterance,) = UtteranceReader(index).read([7])
    for embedding in (utterance.utt_embedding, utterance.spk_embedding):
        assert embedding.dtype == np.float32
        assert embedding.tolist() == [float(place == 7) for place in range(192)]


def test_rejected_speech_is_read_when_asked_for(index):
    utterances = UtteranceReader(index, rejected=True).read([2, 3])
    assert [utterance.reject_speech_token.tolist() for utterance in utterances] == [[2], []]


def test_embeddings_need_not_be_there_when_not_asked_for(make_shards, tokenizer):
    index = build_index(str(make_shards(leave_out=["utt_embedding", "spk_embedding"])), tokenizer)
    assert UtteranceReader(index, embeddings=False).read([0])[0].utt_embedding is None
    with pytest.raises(CosyFlowError, match=r"parquet_000000000\.tar: has no column utt_embedding"):
        UtteranceReader(index).read([0])


def test_speech_tokens_outside_the_vocabulary_name_file_and_utterance(index):
    message = r"parquet_000000001\.tar: speech_token of utterance utt5 has token 12, valid ones are 0 to 11"
    with pytest.raises(CosyFlowError, match=message):
        UtteranceReader(index, speech_ids=12).read([4])


def test_no_shard_is_read_twice_while_the_cache_holds_it(index, monkeypatch):
    opened = []
    original = shard_module.open_shard
    monkeypatch.setattr(shard_module, "open_shard", lambda uri: opened.append(uri) or original(uri))
    reader = UtteranceReader(index, cached_shards=2)
    reader.read([0, 4, 1, 5])
    assert len(opened) == 2
    reader.read([8, 4, 0])
    assert len(opened) == 4


def test_audio_is_never_read(index, monkeypatch):
    columns = []
    original = shard_module.read_columns

    def spy(uri, file, names):
        columns.extend(names)
        return original(uri, file, names)

    monkeypatch.setattr(shard_module, "read_columns", spy)
    UtteranceReader(index, rejected=True).read(range(12))
    assert "audio_data" not in columns


def test_a_shard_that_changed_after_indexing_is_named(index, make_shards):
    make_shards(shard_size=5)
    with pytest.raises(CosyFlowError, match=r"parquet_000000001\.tar: row 1 is no longer the utterance utt4"):
        UtteranceReader(index).read([0, 4])


def test_reader_travels_without_its_cache(index):
    reader = UtteranceReader(index)
    expected = utterances_and_speech(reader.read(range(12)))
    copy = pickle.loads(pickle.dumps(reader))  # noqa: S301 - our own bytes
    assert utterances_and_speech(copy.read(range(12))) == expected


@pytest.mark.parametrize(("num_workers", "prefetch"), [(0, None), (0, 8), (1, None), (2, 4)])
def test_batches_come_in_the_order_of_the_plan(index, num_workers, prefetch):
    plan = plan_epoch(index, 1, 0, BUDGET)
    reader = UtteranceReader(index)
    for rank in range(2):
        share = plan.share(rank, 2, per_update=2)
        expected = [utterances_and_speech(reader.read(batch)) for batch in share]
        loader = build_loader(share, reader, utterances_and_speech, num_workers, prefetch, pin_memory=True)
        assert list(loader) == expected
        assert len(loader) == len(share)
        rest = plan.share(rank, 2, per_update=2, start=2)
        resumed = build_loader(rest, reader, utterances_and_speech, num_workers, prefetch)
        assert list(resumed) == expected[1:]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_is_one_line(index, num_workers):
    share = plan_epoch(index, 1, 0, BUDGET).share()
    loader = build_loader(share, UtteranceReader(index, speech_ids=5), utterances_and_speech, num_workers=num_workers)
    message = r"^[^ ]+parquet_00000000\d\.tar: speech_token of utterance utt\d has token 5"
    with pytest.raises(CosyFlowError, match=message) as error:
        list(loader)
    assert "Traceback" not in str(error.value)


def fails(utterances):
    return 1 / 0


def ends_its_process(utterances):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_that_nobody_foresaw_names_the_batch(index, num_workers):
    share = plan_epoch(index, 1, 0, BUDGET).share()
    loader = build_loader(share, UtteranceReader(index), fails, num_workers=num_workers)
    told = r"^a batch of (utt\d+, ){0,2}utt\d+( and 1 more)?: ZeroDivisionError: .*; its traceback is in .*\.log$"
    with pytest.raises(UnexpectedError, match=told):
        list(loader)


@pytest.mark.medium
def test_a_killed_worker_is_told_in_words(index):
    share = plan_epoch(index, 1, 0, BUDGET).share()
    loader = build_loader(share, UtteranceReader(index), ends_its_process, num_workers=1)
    with pytest.raises(UnexpectedError, match=r"DataLoader worker .*; did the machine have too little memory\?"):
        list(loader)


def test_an_outage_in_a_worker_stays_one(index, monkeypatch):
    """It says nothing about another attempt, see `cosyflow.training.failure`."""

    def unreachable(*_):
        raise OutageError("s3://bucket: does not answer")

    monkeypatch.setattr(UtteranceReader, "read", unreachable)
    share = plan_epoch(index, 1, 0, BUDGET).share()
    with pytest.raises(OutageError, match="does not answer"):
        list(build_loader(share, UtteranceReader(index), utterances_and_speech, num_workers=1))
