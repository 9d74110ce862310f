"""From Kaldi files to utterances: what training is given of the golden corpus is what the official pipeline gives.

Order and padding of the official batches are not compared: ours are packed, and planned for a whole epoch.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cosyflow.config.data import FilterConf
from cosyflow.dataset.filter import filter_utterances
from cosyflow.dataset.index import build_index
from cosyflow.dataset.parquet import make_parquet
from cosyflow.dataset.reader import UtteranceReader

SAMPLE_RATE = 24000
CASES = "data/batches_v[23]_tts*.json"  # the tokenizer of version 1 is not among the golden files


class GoldenTokenizer:
    """The tokenizer of these cases: UTF-8 bytes, at most 190."""

    def encode_batch(self, texts):
        return [list(text.encode())[:190] for text in texts]


def golden_utterances(golden_file):
    """The fields of each utterance in the official batches, without padding."""
    batches, tensors = (
        json.loads(golden_file.read_text())["batches"],
        load_file(golden_file.with_suffix(".safetensors")),
    )
    utterances = {}
    for number, batch in enumerate(batches):
        for place, utt in enumerate(batch["utts"]):
            fields = {"text": batch["text"][place]}
            for name in ("text_token", "instruct_token", "speech_token", "reject_speech_token"):
                length = tensors[f"b{number}.{name}_len"][place]
                fields[name] = tensors[f"b{number}.{name}"][place, :length].tolist()
            for name in ("utt_embedding", "spk_embedding"):
                fields[name] = tensors[f"b{number}.{name}"][place].numpy()
            utterances[utt] = fields
    return utterances


@pytest.mark.golden_files(CASES)
def test_utterances(golden_file, tmp_path):
    expected = golden_utterances(golden_file)
    kaldi = json.loads((golden_file.parent / "parquet_layout.json").read_text())["kaldi"]
    source, rejected, output = tmp_path / "source", tmp_path / "rejected", tmp_path / "out"
    source.mkdir()
    rejected.mkdir()
    for name, text in kaldi.items():
        (source / name).write_text(text.replace("<wav_dir>", str(golden_file.parent / "wav")), encoding="utf-8")
    speakers = dict(line.split() for line in kaldi["utt2spk"].splitlines())
    fallback = next(iter(expected.values()))  # for utterances that the official pipeline drops
    fields = {utt: expected.get(utt, fallback) for utt in speakers}
    # three times as long as they should come out
    embeddings = {utt: (3 * field["utt_embedding"]).tolist() for utt, field in fields.items()}
    means = {speakers[utt]: (3 * field["spk_embedding"]).tolist() for utt, field in expected.items()}
    torch.save(embeddings, source / "utt2embedding.pt")
    torch.save({speaker: means.get(speaker, [1.0] * 192) for speaker in speakers.values()}, source / "spk2embedding.pt")
    torch.save({utt: field["speech_token"] for utt, field in fields.items()}, source / "utt2speech_token.pt")
    torch.save({utt: field["reject_speech_token"] for utt, field in fields.items()}, rejected / "utt2speech_token.pt")

    make_parquet(str(source), str(source), str(source), str(output), 3, reject_token_dir=str(rejected))
    index = build_index(str(output / "data.list"), GoldenTokenizer())
    index = filter_utterances(index, FilterConf(), SAMPLE_RATE, rejected=True).index
    found = {utterance.utt: utterance for utterance in UtteranceReader(index, rejected=True).read(range(len(index)))}

    assert found.keys() == expected.keys()
    for utt, field in expected.items():
        assert found[utt].text == field["text"]
        for name in ("text_token", "instruct_token", "speech_token", "reject_speech_token"):
            assert getattr(found[utt], name).tolist() == field[name]
        for name in ("utt_embedding", "spk_embedding"):
            np.testing.assert_allclose(getattr(found[utt], name), field[name], atol=1e-6)
