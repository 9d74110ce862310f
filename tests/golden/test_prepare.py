"""Kaldi files of a LibriTTS tree, compared with those of the reference as sets of lines (its order is the disk's)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.corpus.prepare import prepare
from cosyflow.corpus.rejects import read_rejects


def build_tree(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".wav":
            soundfile.write(path, np.zeros(2400), 24_000, subtype="PCM_16")
        else:
            path.write_bytes(content.encode())


def lines_by_utterance(text: str) -> dict[str, str]:
    return dict(line.split(" ", maxsplit=1) for line in text.splitlines())


@pytest.mark.golden_files("data/prepare*.json")
@pytest.mark.parametrize("output", ["plain", "instruct"])
def test_files_are_those_of_the_reference(golden_file: Path, output: str, tmp_path: Path) -> None:
    case = json.loads(golden_file.read_text())
    source, target = tmp_path / "source", tmp_path / "kaldi"
    build_tree(source, case["tree"])
    expected = {name: lines_by_utterance(text) for name, text in case["outputs"][output]["files"].items()}
    instruct = next(iter(expected["instruct"].values())) if "instruct" in expected else None
    prepare(str(source), str(target), instruct=instruct, max_reject_share=0.9)

    empty = {utt for utt, text in expected["text"].items() if not text.strip()}
    ours = {name: lines_by_utterance((target / name).read_text()) for name in expected}
    for name in expected.keys() - {"spk2utt"}:
        kept = {utt: value for utt, value in expected[name].items() if utt not in empty}
        assert ours[name] == {utt: value.replace("<src_dir>", str(source)) for utt, value in kept.items()}
    speakers = {spk: set(utts.split()) - empty for spk, utts in expected["spk2utt"].items()}
    assert {spk: set(utts.split()) for spk, utts in ours["spk2utt"].items()} == {
        spk: utts for spk, utts in speakers.items() if utts
    }

    skipped = {Path(warning.split()[0]).name.split(".")[0] for warning in case["outputs"][output]["warnings"]}
    assert read_rejects(str(target)).keys() == skipped | empty
