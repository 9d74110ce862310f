"""Samples of a reference as the rejected half of pairs: in its form, of every utterance, and repeatable."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosyflow import storage
from cosyflow.audio.opener import inspect_audio
from cosyflow.cli import main
from cosyflow.corpus.kaldi import KaldiUtterance, read_kaldi
from cosyflow.dataset.index import build_index
from cosyflow.dataset.parquet import make_parquet
from cosyflow.preferences.sampling import choose_prompts
from tests.unit.preferences.conftest import CONFIG, TEXTS, Corpus
from tests.unit.quick_judges import list_quick_judges


class _Letters:
    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]


@pytest.mark.medium
def test_samples_are_the_rejected_speech_of_the_shards(corpus: Corpus) -> None:
    assert main(corpus.words()) == 0
    samples = corpus.tokens()
    assert list(samples) == list(TEXTS)
    assert corpus.rejects() == {}
    make_parquet(str(corpus.src), None, str(corpus.src), str(corpus.folder / "shards"),
                 reject_token_dir=str(corpus.des), max_reject_share=1.0)  # fmt: skip
    index = build_index(str(corpus.folder / "shards" / "data.list"), _Letters())
    assert index.rejected_len.tolist() == [len(samples[utt]) for utt in index.utts]


@pytest.mark.slow
def test_a_language_model_is_trained_on_the_pairs(corpus: Corpus) -> None:
    """From the recordings to rewards, by the commands of a user."""
    tokens, shards, train = (str(corpus.folder / name) for name in ("tokens", "shards", "train"))
    model = str(corpus.model / "speech_tokenizer_v2.onnx")
    assert main(["speech-token", "--dir", str(corpus.src), "--onnx_path", model, "--output_dir", tokens]) == 0
    assert main(corpus.words("--token_dir", tokens)) == 0
    places = ["--src_dir", str(corpus.src), "--des_dir", shards, "--token_dir", tokens]
    assert main(["parquet", *places, "--dpo"]) == 0
    data = f"{shards}/data.list"
    start = ["--checkpoint", str(corpus.model / "llm.pt"), "--tokenizer_path", str(corpus.model)]
    settings = ["--set", "train_conf.max_epoch=1", "--set", "filter.min_length=10"]
    command = ["train", "--config", CONFIG, "--train_data", data, "--cv_data", data, "--model_dir", train]
    assert main([*command, *start, *settings, "--dpo", "--num_workers", "0", "--launcher", "local"]) == 0
    last = json.loads(Path(train, "metrics.jsonl").read_text().splitlines()[-1])
    assert last.keys() >= {"cv/loss", "cv/chosen_reward", "cv/rejected_reward"}


@pytest.mark.slow
def test_the_seed_decides_and_not_the_processes(corpus: Corpus) -> None:
    drawn = []
    for seed, processes in (("0", "1"), ("0", "2"), ("1", "1")):
        shutil.rmtree(corpus.des, ignore_errors=True)
        assert main(corpus.words("--seed", seed, "--num_processes", processes)) == 0
        drawn.append(corpus.tokens())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.medium
def test_what_is_sampled_is_kept(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    """A second call works on what is new or was changed alone."""
    assert main(corpus.words()) == 0
    first, kept = corpus.tokens(), {file: file.stat().st_mtime_ns for file in corpus.des.rglob("samples/*/*.json")}
    (corpus.src / "text").write_text((corpus.src / "text").read_text().replace("The sky.", "A dog."))
    next(iter(kept)).write_text("damaged")
    assert main(corpus.words()) == 0
    assert "1 of 3 samples are there already" in capsys.readouterr().out
    assert {utt for utt in TEXTS if corpus.tokens()[utt] != first[utt]} == {"a-2"}


@pytest.mark.medium
def test_samples_can_be_spoken_and_tokenised_again(corpus: Corpus) -> None:
    assert main(corpus.words("--spoken", "--prompt", "other", "--max_reject_share", "0.5")) == 0
    assert corpus.rejects() == {"b-1": "its speaker b has no other for the prompt"}
    spoken = read_kaldi(str(corpus.des))
    assert [each.utt for each in spoken.utterances] == ["a-1", "a-2"]
    tokens = corpus.tokens()
    for each in spoken.utterances:
        assert each.text == TEXTS[each.utt]
        sound = soundfile.info(each.wav)
        assert sound.samplerate == 24000
        assert abs(len(tokens[each.utt]) - sound.duration * 25) <= 1


@pytest.mark.medium
def test_samples_may_go_to_a_store(corpus: Corpus, s3_folder: str) -> None:
    assert main([*corpus.words("--spoken"), "--des_dir", s3_folder]) == 0
    with storage.local_copy(f"{s3_folder}/utt2speech_token.pt") as table:
        assert list(torch.load(table, weights_only=True)) == list(TEXTS)
    assert all(inspect_audio(each.wav).seconds > 0 for each in read_kaldi(s3_folder).utterances)


@pytest.mark.medium
def test_a_sample_that_is_the_recordings_own_speech_makes_no_pair(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(corpus.words()) == 0
    corpus.set_tokens({**{utt: [1, 2] for utt in TEXTS}, "a-2": corpus.tokens()["a-2"]})
    assert main(corpus.words()) == 0
    assert set(corpus.tokens()) == {"a-1", "b-1"}
    assert corpus.rejects() == {"a-2": "the sample is the recording's own speech"}
    assert "2 pairs of 3 utterances; 1 samples are equal" in capsys.readouterr().out
    counts = json.loads((corpus.des / "report.json").read_text())["counts"]
    assert (counts["inputs"], counts["outputs"], counts["rejects"], counts["equal"]) == (3, 2, 1, 1)


@pytest.mark.medium
def test_every_utterance_is_a_pair_or_has_a_reason(corpus: Corpus) -> None:
    """Audio that is damaged, too long or of too low a rate, text that cannot be spoken, and no tokens."""
    corpus.write({"good": "A lamp.", "cut": "One.", "long": "Two.", "low": "Three.", "dumb": "?!", "bare": "Four."})
    (corpus.src / "cut.wav").write_bytes((corpus.src / "cut.wav").read_bytes()[:2000])
    soundfile.write(corpus.src / "long.wav", np.zeros(16000 * 31), 16000)
    soundfile.write(corpus.src / "low.wav", np.zeros(8000), 8000)
    corpus.set_tokens({"good": [1], "cut": [1], "long": [1], "low": [1], "dumb": [1]})
    assert main(corpus.words("--max_reject_share", "0.9")) == 0
    assert set(corpus.tokens()) == {"good"}
    rejects = corpus.rejects()
    assert rejects.keys() == {"cut", "long", "low", "dumb", "bare"}
    for utt, words in {"cut": "cut.wav", "long": "31.00 s", "low": "8000 Hz", "dumb": "neither", "bare": "no"}.items():
        assert words in rejects[utt]


def test_too_many_that_cannot_be_sampled_are_an_error(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    corpus.set_tokens({"a-1": [1]})
    (corpus.src / "a-1.wav").unlink()
    assert main(corpus.words()) == 1
    assert "3 of 3 utterances (100.0%) cannot be used" in capsys.readouterr().err
    assert not (corpus.des / "utt2speech_token.pt").exists()


@pytest.mark.slow
def test_it_goes_on_after_a_kill(corpus: Corpus) -> None:
    """Killed when one utterance is sampled: nobody goes on, no table is there, and that sample is taken over."""
    corpus.write({f"a-{number}": f"The lamp number {number}." for number in range(12)})
    command = [sys.executable, "-m", "cosyflow", *corpus.words("--spoken", "--num_processes", "2")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (there := list(corpus.des.glob("samples/*/*.json"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while _is_alive(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = {file: file.stat().st_mtime_ns for file in there}
    assert not (corpus.des / "utt2speech_token.pt").exists()
    assert main(corpus.words("--spoken")) == 0
    assert {file: file.stat().st_mtime_ns for file in there} == kept
    again = corpus.tokens()
    assert len(again) == 12
    shutil.rmtree(corpus.des)
    assert main(corpus.words("--spoken")) == 0
    assert corpus.tokens() == again


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def judges(tmp_path: Path) -> str:
    """Two quick real judges."""
    return list_quick_judges(tmp_path)


@pytest.mark.medium
def test_only_what_judges_find_worse_makes_a_pair(corpus: Corpus, judges: str) -> None:
    """Noise of an untrained model is no tone of the speaker; of a speaker alone nobody can say what is like him."""
    assert main(corpus.words("--judges", judges, "--least", "dnsmos=4", "--least", "failures=2")) == 0
    report = json.loads((corpus.des / "report.json").read_text())
    assert report["missing"].keys() == {"wer", "cer", "quality"}
    assert report["differences"]["a-1"]["similarity"] > 0.1
    assert "similarity" not in report["differences"]["b-1"]
    assert set(corpus.tokens()) == {"a-1", "a-2"}
    assert corpus.rejects() == {"b-1": "the sample is as good as the recording"}
    assert report["counts"]["alike"] == 1


@pytest.mark.medium
def test_what_was_changed_is_heard_again(corpus: Corpus, judges: str) -> None:
    command = corpus.words("--judges", judges)
    assert main(command) == 0
    first = {file.name for file in corpus.des.glob("heard/*/candidate/dnsmos*/*.json")}
    (corpus.src / "text").write_text((corpus.src / "text").read_text().replace("The sky.", "A big dog."))
    assert main(command) == 0
    second = {file.name for file in corpus.des.glob("heard/*/candidate/dnsmos*/*.json")}
    assert len(first) == 3
    (new,) = second - first
    assert new.endswith("-a-2.json")


@pytest.mark.medium
def test_judges_that_do_not_judge_make_no_pairs(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus.folder / "judges").mkdir()
    assert main(corpus.words("--judges", str(corpus.folder / "judges"))) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no judge judged, so no pair is known to differ" in line
    assert "has no judge that writes what it hears" in line
    assert not (corpus.des / "utt2speech_token.pt").exists()


def test_wrong_settings_are_refused_all_at_once(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--least", "wer=-1", "--least", "beauty=1", "--num_processes", "-1", "--max_reject_share", "2"]
    assert main(corpus.words(*wrong)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        "--least", "--least", "--least", "--num_processes", "--max_reject_share",
    ]  # fmt: skip
    assert not corpus.des.exists()


def test_the_recordings_own_folder_is_not_written_into(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    before = (corpus.src / "utt2speech_token.pt").read_bytes()
    assert main([*corpus.words(), "--des_dir", f"{corpus.src}/../src"]) == 2
    assert "is --src_dir too, whose tokens would be lost" in capsys.readouterr().err
    assert (corpus.src / "utt2speech_token.pt").read_bytes() == before


@pytest.mark.parametrize("part", ["llm.pt", "campplus.onnx"])
def test_a_reference_without_a_part(corpus: Corpus, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(corpus.model, corpus.folder / "model")
    (corpus.folder / "model" / part).unlink()
    assert main([*corpus.words(), "--ref_model", str(corpus.folder / "model")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{corpus.folder / 'model' / part}: no such file" in line


def test_a_reference_with_a_part_of_another_version(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no fault of the utterances."""
    shutil.copytree(corpus.model, corpus.folder / "model")
    shutil.copy(corpus.model / "hift.pt", corpus.folder / "model" / "llm.pt")
    assert main([*corpus.words(), "--ref_model", str(corpus.folder / "model")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{corpus.folder / 'model' / 'llm.pt'}: does not fit the model" in line
    assert not (corpus.des / "rejects.tsv").exists()


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(0, 99))
def test_a_prompt_is_another_utterance_of_the_speaker(speakers: list[str], seed: int) -> None:
    utterances = [KaldiUtterance(f"u{place}", "wav", "text", spk) for place, spk in enumerate(speakers)]
    found = choose_prompts(utterances, "other", seed)
    assert found.keys() == {each.utt for each in utterances}
    for each in utterances:
        prompt = found[each.utt]
        alone = speakers.count(each.spk) == 1
        assert isinstance(prompt, str) == alone
        assert alone or (prompt.utt != each.utt and prompt.spk == each.spk)
    assert found == {utt: choose_prompts(utterances[::-1], "other", seed)[utt] for utt in found}
