"""Extraction gives the official files, whatever the number of workers and however often it was interrupted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.audio.features import fbank, whisper_log_mel
from cosyflow.corpus.kaldi import KaldiData, KaldiUtterance
from cosyflow.corpus.rejects import read_rejects
from cosyflow.errors import CosyFlowError
from cosyflow.extract import job, parts
from cosyflow.extract.inputs import speaker_fbank, tokenizer_log_mel
from cosyflow.extract.job import DURATIONS, Item, UnitResult, Workers, plan_units
from cosyflow.extract.speaker_embedding import SpeakerEmbedder, extract_speaker_embeddings
from cosyflow.extract.speech_token import extract_speech_tokens

CorpusWriter = Callable[[Mapping[str, Path]], Path]
SoundWriter = Callable[..., Path]


def load(path: Path) -> dict[str, list[Any]]:
    return torch.load(path, weights_only=True)


def wavs_of(corpus: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in (corpus / "wav.scp").read_text().splitlines())


def test_embeddings_are_the_models_and_their_means(corpus: Path, models: Path, tmp_path: Path) -> None:
    onnx = models / "campplus.onnx"
    result = extract_speaker_embeddings(str(corpus), str(tmp_path / "out"), str(onnx))
    assert result.counts == {"inputs": 12, "outputs": 12, "rejects": 0, "speakers": 3, "left_out_of_means": 0}
    assert result.stand_ins
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(result.files)

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    utterances, speakers = (load(tmp_path / "out" / file) for file in ("utt2embedding.pt", "spk2embedding.pt"))
    assert list(utterances) == list(wavs_of(corpus))
    for utt, wav in wavs_of(corpus).items():
        alone = session.run(None, {"input": speaker_fbank(wav)[None].numpy()})[0][0]
        np.testing.assert_allclose(utterances[utt], alone, atol=1e-5)
    assert list(speakers) == ["c", "a", "b"]
    for speaker, mean in speakers.items():
        own = [embedding for utt, embedding in utterances.items() if utt.startswith(speaker)]
        np.testing.assert_allclose(mean, np.mean(own, axis=0), atol=1e-6)


@pytest.mark.parametrize(("model", "stride"), [("speech_tokenizer_v1.onnx", 2), ("speech_tokenizer_v2.onnx", 4)])
def test_tokens_are_the_models(corpus: Path, models: Path, tmp_path: Path, model: str, stride: int) -> None:
    result = extract_speech_tokens(str(corpus), str(tmp_path / "out"), str(models / model))
    session = onnxruntime.InferenceSession(models / model, providers=["CPUExecutionProvider"])
    tokens = load(tmp_path / "out" / "utt2speech_token.pt")
    assert list(tokens) == list(wavs_of(corpus))
    for utt, wav in wavs_of(corpus).items():
        log_mel = tokenizer_log_mel(wav).numpy()
        length = np.array([log_mel.shape[1]], np.int32)
        assert tokens[utt] == session.run(None, {"feats": log_mel[None], "feats_length": length})[0].flatten().tolist()
        assert len(tokens[utt]) == log_mel.shape[1] // stride
    assert result.counts["tokens"] == sum(map(len, tokens.values()))
    assert result.details["codes"] == len({token for ids in tokens.values() for token in ids})


def test_channels(models: Path, tmp_path: Path, sound: SoundWriter, write_corpus: CorpusWriter) -> None:
    stereo = sound(tmp_path / "stereo.wav", seed=1, seconds=1.0, sample_rate=16000, channels=2)
    corpus = write_corpus({"s_stereo": stereo, "s_low": sound(tmp_path / "low.wav", 2, 1.0, sample_rate=8000)})
    result = extract_speaker_embeddings(str(corpus), str(corpus), str(models / "campplus.onnx"))
    assert result.counts["rejects"] == 0
    samples = torch.from_numpy(soundfile.read(stereo, dtype="float32")[0])
    left = fbank(samples[:, 0])
    torch.testing.assert_close(speaker_fbank(str(stereo)), left - left.mean(dim=0))
    torch.testing.assert_close(tokenizer_log_mel(str(stereo)), whisper_log_mel(samples.mean(dim=1)))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_number_of_threads_does_not_matter(corpus: Path, models: Path, tmp_path: Path, num_threads: int) -> None:
    (corpus / DURATIONS).write_text("".join(f"{utt} {len(utt)}\n" for utt in wavs_of(corpus)))
    for out in ("one", "other"):
        threads = num_threads if out == "other" else 1
        onnx = str(models / "campplus.onnx")
        extract_speaker_embeddings(str(corpus), str(tmp_path / out), onnx, num_threads=threads)
    assert (tmp_path / "one/utt2embedding.pt").read_bytes() == (tmp_path / "other/utt2embedding.pt").read_bytes()


@pytest.mark.slow
def test_processes_give_the_same(
    corpus: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = str(models / "speech_tokenizer_v2.onnx")
    extract_speech_tokens(str(corpus), str(tmp_path / "threads"), onnx)
    monkeypatch.setattr(job, "PROCESSES_FROM_UTTERANCES", 1)
    extract_speech_tokens(str(corpus), str(tmp_path / "processes"), onnx, num_processes=2)
    assert re.search(r"on CPU( \(no CUDA: .*\))?, 2 processes", capsys.readouterr().out)
    threads, processes = (tmp_path / out / "utt2speech_token.pt" for out in ("threads", "processes"))
    assert threads.read_bytes() == processes.read_bytes()


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


def test_an_interrupted_job_goes_on(
    corpus: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = str(models / "campplus.onnx")
    extract_speaker_embeddings(str(corpus), str(tmp_path / "whole"), onnx)
    monkeypatch.setattr(job, "UNIT_SIZE", 3)
    monkeypatch.setattr(parts, "FLUSH_UTTERANCES", 3)
    worked: list[str] = []
    interrupted: list[str] = []
    really_extract = SpeakerEmbedder.extract

    def extract(self: SpeakerEmbedder, items: Sequence[Item]) -> UnitResult:
        if len(worked) == 6 and not interrupted:
            interrupted.append(items[0].utt)
            raise Interrupted
        worked.extend(item.utt for item in items)
        return really_extract(self, items)

    monkeypatch.setattr(SpeakerEmbedder, "extract", extract)
    with pytest.raises(Interrupted):
        extract_speaker_embeddings(str(corpus), str(tmp_path / "out"), onnx, num_threads=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parts"]
    written = [json.loads(path.read_text())["values"] for path in (tmp_path / "out" / "parts").iterdir()]
    kept = {utt for values in written for utt in values}
    assert len(kept) >= 6, "what was finished before the interruption"
    worked.clear()
    result = extract_speaker_embeddings(str(corpus), str(tmp_path / "out"), onnx, num_threads=1)
    assert set(worked) == wavs_of(corpus).keys() - kept
    assert result.counts["outputs"] == 12
    assert not (tmp_path / "out" / "parts").exists()
    for file in ("utt2embedding.pt", "spk2embedding.pt"):
        whole, resumed = load(tmp_path / "whole" / file), load(tmp_path / "out" / file)
        assert list(whole) == list(resumed)
        np.testing.assert_allclose(list(whole.values()), list(resumed.values()), atol=1e-5)


def test_parts_of_another_model_or_damaged_ones_are_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "000000.json").write_text('{"identity": "ours", "values": {"a": [1.5]}}')
    (folder / "000001.json").write_text('{"identity": "theirs", "values": {"b": [2.5]}}')
    (folder / "000002.json").write_text('{"identity": "ours", "val')
    ours = parts.Parts(str(tmp_path), "ours")
    assert ours.load() == {"a": [1.5]}
    ours.add({str(number): [0.1 + 0.2] for number in range(parts.FLUSH_UTTERANCES)})
    assert parts.Parts(str(tmp_path), "ours").load()["7"] == [0.1 + 0.2]
    ours.remove()
    assert list(tmp_path.iterdir()) == []


@given(seconds=st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.5]), min_size=1, max_size=80))
def test_a_plan_has_every_utterance_once_and_equal_lengths_together(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    data = KaldiData([KaldiUtterance(f"u{number}", f"{number}.wav", "", "s") for number in range(len(seconds))])
    (folder / DURATIONS).write_text("".join(f"u{number} {value:.4f}\n" for number, value in enumerate(seconds)))
    planned = [item.utt for unit in plan_units(data, str(folder)) for item in unit]
    assert sorted(planned) == sorted(utterance.utt for utterance in data.utterances)
    lengths = [seconds[int(utt[1:])] for utt in planned]
    assert lengths == sorted(lengths, reverse=True)


def test_rejects_have_reasons_and_counts_add_up(
    models: Path, tmp_path: Path, sound: SoundWriter, write_corpus: CorpusWriter
) -> None:
    wavs = {f"s_{number}": sound(tmp_path / f"{number}.wav", number, 0.5) for number in range(3)}
    wavs |= {
        "s_30ms": sound(tmp_path / "30ms.wav", 7, 0.03),
        "s_5ms": sound(tmp_path / "5ms.wav", 8, 0.005),
        "s_gone": tmp_path / "gone.wav",
        "s_31s": sound(tmp_path / "31s.wav", 9, 31.0, sample_rate=8000),
        "s_30s": sound(tmp_path / "30s.wav", 9, 30.0, sample_rate=8000),
    }
    corpus = write_corpus(wavs)
    out = tmp_path / "out"
    result = extract_speech_tokens(
        str(corpus), str(out), str(models / "speech_tokenizer_v2.onnx"), max_reject_share=0.5
    )
    assert (result.counts["inputs"], result.counts["outputs"], result.counts["rejects"]) == (8, 4, 4)
    reasons = read_rejects(str(out))
    assert reasons.keys() == {"s_30ms", "s_5ms", "s_gone", "s_31s"}
    assert "give no speech token" in reasons["s_30ms"]
    assert "5ms.wav: 80 samples are too short" in reasons["s_5ms"]
    assert "cannot be opened" in reasons["s_gone"]
    assert "31.00 s, the speech tokenizer takes 30 s at most" in reasons["s_31s"]
    assert load(out / "utt2speech_token.pt").keys() == wavs.keys() - reasons.keys()


def test_rejects_of_the_corpus_itself_stay_in_its_table(corpus: Path, models: Path) -> None:
    (corpus / "rejects.tsv").write_text("utt\treason\nd_1\tempty transcript\n")
    extract_speaker_embeddings(str(corpus), str(corpus), str(models / "campplus.onnx"))
    assert read_rejects(str(corpus)) == {"d_1": "empty transcript"}


@pytest.mark.parametrize(
    ("num_threads", "num_processes", "utterances", "chosen"),
    [(3, 1, 10**6, "3 threads"), (0, 2, 100, "2 threads"), (0, 8, 10**6, "8 processes"), (0, 1, 10, None)],
)
def test_processes_are_for_large_corpora(
    num_threads: int, num_processes: int, utterances: int, chosen: str | None
) -> None:
    workers = Workers.choose(num_threads, num_processes, utterances)
    assert str(workers) == (chosen or f"{len(os.sched_getaffinity(0))} threads")
    with pytest.raises(CosyFlowError, match="must not be negative"):
        Workers.choose(-1, num_processes, utterances)
