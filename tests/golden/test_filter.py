"""The filter keeps and drops what the official data pipeline keeps and drops."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cosyflow.config.data import FilterConf
from cosyflow.dataset.filter import filter_utterances
from cosyflow.dataset.utterances import TokenTable, UtteranceIndex

SAMPLE_RATE = 24000


@pytest.mark.golden_files("data/filter_decisions*.json")
def test_decisions(golden_file):
    golden = json.loads(golden_file.read_text())
    for version, rules in golden["configs"].items():
        cases = [case for case in golden["cases"] if case["version"] == int(version)]
        result = filter_utterances(index_of(cases), FilterConf(**rules), SAMPLE_RATE)
        assert result.index.utts.tolist() == [number for number, case in enumerate(cases) if case["kept"]]
        assert sum(map(len, result.dropped.values())) == sum(not case["kept"] for case in cases)


def index_of(cases: list[dict]) -> UtteranceIndex:
    """An index with the golden lengths, whose utterances are named by their number."""
    count = len(cases)
    return UtteranceIndex(
        shards=("shard",),
        shard=np.zeros(count, np.int32),
        row=np.arange(count, dtype=np.int32),
        utts=np.array(range(count), dtype=object),
        num_samples=np.array([round(case["seconds"] * SAMPLE_RATE) for case in cases], np.int64),
        sample_rate=np.full(count, SAMPLE_RATE, np.int32),
        speech_len=np.array([case["speech_tokens"] for case in cases], np.int32),
        rejected_len=np.full(count, -1, np.int32),
        text=TokenTable.of([[0] * case["text_tokens"] for case in cases]),
        instruct=None,
    )
