"""Token ids are those of the reference.

The released vocabularies are not part of this repository. What does not need them (order and ids of the special tokens,
their splitting, decoding) is tested with the stand-ins; the ids of the words are tested when the environment variable
COSYFLOW_PRETRAINED_DIR names a folder with `CosyVoice-BlankEN` and `multilingual.tiktoken`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cosyflow.families.parts import QWEN2_FOLDER, WHISPER_RANKS
from cosyflow.standins.text_models import make_qwen2_folder
from cosyflow.text.tokenizer import build_tokenizer

PRETRAINED = Path(os.environ.get("COSYFLOW_PRETRAINED_DIR", "no-pretrained-directory"))
QWEN2_BASE = 151643  # released ids below this are byte-level BPE


@pytest.mark.golden_files("data/tokenize.json")
@pytest.mark.parametrize("version", ["cosyvoice2", "cosyvoice3"])
def test_special_tokens_with_a_small_vocabulary(golden_file: Path, version: str, tmp_path: Path) -> None:
    golden: dict[str, Any] = json.loads(golden_file.read_text())
    make_qwen2_folder(tmp_path / QWEN2_FOLDER, seed=0)
    tokenizer = build_tokenizer(version, str(tmp_path))
    base = tokenizer.token_id("<|endoftext|>")
    assert tokenizer.vocab_size - base == golden["vocab_sizes"][version] - QWEN2_BASE
    for token, released in golden[f"{version}_special_ids"].items():
        assert tokenizer.token_id(token) - base == released - QWEN2_BASE
    for case, decoded in zip(golden[version], golden[f"{version}_decode"], strict=True):
        ids = tokenizer.encode(case["text"])
        special = [number - base for number in ids if number >= base]
        assert special == [number - QWEN2_BASE for number in case["ids"] if number >= QWEN2_BASE]
        assert tokenizer.decode(ids) == decoded


@pytest.mark.skipif(not (PRETRAINED / QWEN2_FOLDER).is_dir(), reason="no released Qwen2 vocabulary on this machine")
@pytest.mark.golden_files("data/tokenize.json")
@pytest.mark.parametrize("version", ["cosyvoice2", "cosyvoice3"])
def test_ids_with_the_released_vocabulary(golden_file: Path, version: str) -> None:
    golden = json.loads(golden_file.read_text())
    tokenizer = build_tokenizer(version, str(PRETRAINED))
    assert tokenizer.vocab_size == golden["vocab_sizes"][version]
    for case in golden[version]:
        assert tokenizer.encode(case["text"]) == case["ids"]


@pytest.mark.skipif(not (PRETRAINED / WHISPER_RANKS).is_file(), reason="no released Whisper ranks on this machine")
@pytest.mark.golden_files("data/tokenize.json")
def test_ids_with_the_released_ranks(golden_file: Path) -> None:
    golden = json.loads(golden_file.read_text())
    tokenizer = build_tokenizer("cosyvoice", str(PRETRAINED))
    assert tokenizer.vocab_size == golden["vocab_sizes"]["whisper"]
    for case in golden["whisper_v1_50hz"]:
        assert tokenizer.encode(case["text"]) == case["ids"]
