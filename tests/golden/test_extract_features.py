"""The inputs of the speaker-embedding model and of the speech tokenizer are those of the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cosyflow.extract.inputs import speaker_fbank, tokenizer_log_mel


@pytest.mark.golden_files("data/extract_features.json")
def test_model_inputs_of_every_file(golden_file: Path) -> None:
    expected = load_file(golden_file.with_suffix(".safetensors"))
    for name, facts in json.loads(golden_file.read_text())["per_file"].items():
        wav = str(golden_file.parent / "wav" / f"{name}.wav")
        fbank = speaker_fbank(wav)
        assert [1, *fbank.shape] == facts["campplus_shape"]
        head = expected[f"{name}.campplus_feat"]
        torch.testing.assert_close(fbank[: len(head)], head, atol=1e-4, rtol=0.0)
        total = fbank.double().sum(dim=0)
        torch.testing.assert_close(total, expected[f"{name}.campplus_feat_sum"], atol=1e-2, rtol=0.0)

        log_mel = tokenizer_log_mel(wav)
        assert [1, *log_mel.shape] == facts["tokenizer_shape"]
        assert facts["tokenizer_len_input"] == [log_mel.shape[1]]
        head = expected[f"{name}.tokenizer_feat"][0]
        torch.testing.assert_close(log_mel[:, : head.shape[1]], head, atol=1e-4, rtol=0.0)
        total = log_mel.double().sum(dim=1)
        torch.testing.assert_close(total, expected[f"{name}.tokenizer_feat_sum"][0], atol=1e-2, rtol=0.0)
