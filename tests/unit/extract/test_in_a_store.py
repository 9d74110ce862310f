"""Corpus, audio, models and outputs may all lie in an object store, with the same outputs as on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.extract.speaker_embedding import extract_speaker_embeddings
from cosyflow.extract.speech_token import extract_speech_tokens
from cosyflow.pretrained import is_stand_in, locate


@pytest.mark.medium
def test_same_files_as_on_a_disk(corpus: Path, models: Path, tmp_path: Path, s3_folder: str) -> None:
    pretrained, remote_corpus = (storage.join(s3_folder, name) for name in ("pretrained", "corpus"))
    storage.upload_tree(models, pretrained)
    lines = [line.split(maxsplit=1) for line in (corpus / "wav.scp").read_text().splitlines()]
    for number, (_, wav) in enumerate(lines):
        storage.write_bytes(storage.join(s3_folder, "audio", f"{number} x.wav"), Path(wav).read_bytes())
    for file in ("text", "utt2spk"):
        storage.write_text(storage.join(remote_corpus, file), (corpus / file).read_text())
    scp = "".join(f"{utt} {s3_folder}/audio/{number} x.wav\n" for number, (utt, _) in enumerate(lines))
    storage.write_text(storage.join(remote_corpus, "wav.scp"), scp)

    remote, local = storage.join(s3_folder, "out"), str(tmp_path / "out")
    speaker, tokenizer = (locate(pretrained, name) for name in ("campplus.onnx", "speech_tokenizer_v2.onnx"))
    made = [
        extract_speaker_embeddings(remote_corpus, remote, speaker),
        extract_speech_tokens(remote_corpus, remote, tokenizer),
    ]
    extract_speaker_embeddings(str(corpus), local, str(models / "campplus.onnx"))
    extract_speech_tokens(str(corpus), local, str(models / "speech_tokenizer_v2.onnx"))
    files = {file for result in made for file in result.files}
    assert {file.path for file in storage.list_files(remote)} == files
    for file in files:
        assert storage.read_bytes(storage.join(remote, file)) == storage.read_bytes(storage.join(local, file))


def test_mark_of_stand_ins_is_seen(s3_folder: str) -> None:
    assert not is_stand_in(s3_folder)
    storage.write_text(storage.join(s3_folder, "STAND_INS.json"), "{}")
    assert is_stand_in(s3_folder)
    with pytest.raises(CosyFlowError, match=r"s3://.*campplus\.onnx: no such file"):
        locate(s3_folder, "campplus.onnx")
