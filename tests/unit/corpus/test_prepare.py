"""Preparing: what becomes a line, what becomes a reject, and what stops the stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.cli import main
from cosyflow.corpus.kaldi import KaldiUtterance, read_kaldi
from cosyflow.corpus.prepare import prepare
from cosyflow.corpus.rejects import read_rejects
from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.storage import patience

from .conftest import snapshot, write_wav

BAD = "84_1_000002_000000"
UTTERANCES = ("inputs", "outputs", "rejects", "speakers")


def bad_wav(root: Path) -> Path:
    return root / "84" / "1" / f"{BAD}.wav"


def bad_text(root: Path) -> Path:
    return root / "84" / "1" / f"{BAD}.normalized.txt"


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty wav": (lambda root: bad_wav(root).write_bytes(b""), "empty"),
    "truncated wav": (lambda root: bad_wav(root).write_bytes(bad_wav(root).read_bytes()[:-1000]), "truncated"),
    "not audio": (lambda root: bad_wav(root).write_bytes(b"<html>not found</html>" * 9), "not an audio file"),
    "wav without samples": (lambda root: write_wav(bad_wav(root), seconds=0), "no samples"),
    "8 kHz": (lambda root: write_wav(bad_wav(root), sample_rate=8000), "8000 Hz, at least 16000 Hz"),
    "no transcript": (lambda root: bad_text(root).unlink(), "no transcript"),
    "empty transcript": (lambda root: bad_text(root).write_text(""), "empty transcript"),
    "blank first line": (lambda root: bad_text(root).write_text(" \nsecond line\n"), "empty transcript"),
    "latin-1 transcript": (lambda root: bad_text(root).write_bytes(b"caf\xe9\n"), "0xe9 (offset 3) is not UTF-8"),
}
USABLE: dict[str, Callable[[Path], object]] = {
    "stereo": lambda root: write_wav(bad_wav(root), channels=2),
    "over 30 s": lambda root: write_wav(bad_wav(root), seconds=31, sample_rate=16_000),
    "48 kHz": lambda root: write_wav(bad_wav(root), sample_rate=48_000),
    "hidden leftover": lambda root: bad_wav(root).with_name(f"._{BAD}.wav").write_bytes(b"x"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_utterance_stops_the_stage_and_leaves_the_old_outputs(
    case: str, libritts: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    output = tmp_path / "kaldi"
    prepare(str(libritts), str(output))
    damage, reason = UNUSABLE[case]
    damage(libritts)
    options = ("--src_dir", libritts, "--des_dir", output, "--max_reject_share", 0)
    error = fails("prepare", *options, unchanged=output)
    assert f"1 of 4 utterances (25.0%) cannot be used, the first is {BAD}: " in error
    assert reason in error
    assert bad_wav(libritts).with_suffix("").name in error


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_utterance_is_a_reject_when_that_is_allowed(case: str, libritts: Path, tmp_path: Path) -> None:
    damage, reason = UNUSABLE[case]
    damage(libritts)
    result = prepare(str(libritts), str(tmp_path / "kaldi"), max_reject_share=0.25)
    assert {name: result.counts[name] for name in UTTERANCES} == {
        "inputs": 4, "outputs": 3, "rejects": 1, "speakers": 2,
    }  # fmt: skip
    assert result.counts["seen"] == 4 + result.counts["ignored"]
    rejects = read_rejects(str(tmp_path / "kaldi"))
    assert list(rejects) == [BAD]
    assert reason in rejects[BAD]
    assert BAD not in [utterance.utt for utterance in read_kaldi(str(tmp_path / "kaldi")).utterances]


@pytest.mark.parametrize("case", USABLE)
def test_what_later_stages_can_deal_with_is_kept(case: str, libritts: Path, tmp_path: Path) -> None:
    USABLE[case](libritts)
    counts = prepare(str(libritts), str(tmp_path / "kaldi"), max_reject_share=0).counts
    assert {name: counts[name] for name in UTTERANCES} == {"inputs": 4, "outputs": 4, "rejects": 0, "speakers": 2}


def test_the_files_of_a_libritts_subset(libritts: Path, tmp_path: Path) -> None:
    output = tmp_path / "kaldi"
    result = prepare(str(libritts), str(output), instruct="Speak.<|endofprompt|>")
    assert (output / "utt2spk").read_text().splitlines() == [
        "174_5_000001_000000 174",
        "84_1_000001_000000 84",
        "84_1_000002_000000 84",
        "84_2_000001_000000 84",
    ]
    assert (output / "spk2utt").read_text().splitlines()[0] == "174 174_5_000001_000000"
    assert (output / "utt2dur").read_text().splitlines()[0] == "174_5_000001_000000 0.2500"
    assert (output / "instruct").read_text().splitlines()[3] == "84_2_000001_000000 Speak.<|endofprompt|>"
    assert sorted(result.files) == sorted(path.name for path in output.iterdir())
    first = snapshot(output)
    prepare(str(libritts), str(output), instruct="Speak.<|endofprompt|>")
    assert snapshot(output) == first


def test_own_kaldi_data_is_sorted_and_gets_absolute_paths(kaldi: Path, tmp_path: Path) -> None:
    prepare(str(kaldi), str(tmp_path / "kaldi"))
    assert read_kaldi(str(tmp_path / "kaldi")).utterances == [
        KaldiUtterance("a", f"{kaldi}/my recordings/a.wav", "Guten  Tag.", "anna"),
        KaldiUtterance("b", f"{kaldi}/my recordings/b.wav", "Grüß Gott.", "bert"),
    ]


def test_own_instructions_are_kept(kaldi: Path, tmp_path: Path) -> None:
    (kaldi / "instruct").write_text("a softly\nb loudly\n")
    prepare(str(kaldi), str(tmp_path / "kaldi"), instruct="anyhow")
    assert (tmp_path / "kaldi" / "instruct").read_text() == "a softly\nb loudly\n"


def test_prepared_files_can_be_prepared_again(kaldi: Path, tmp_path: Path) -> None:
    prepare(str(kaldi), str(tmp_path / "once"))
    prepare(str(tmp_path / "once"), str(tmp_path / "twice"))
    assert snapshot(tmp_path / "once") == snapshot(tmp_path / "twice")


def append(file: str, text: str | bytes) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        data = text if isinstance(text, bytes) else text.encode()
        (root / file).write_bytes((root / file).read_bytes() + data)

    return damage


BAD_KALDI: dict[str, tuple[Callable[[Path], object], str]] = {
    "no text file": (lambda root: (root / "text").unlink(), "text does not exist"),
    "no utt2spk": (lambda root: (root / "utt2spk").unlink(), "utt2spk does not exist"),
    "wav.scp has more": (append("wav.scp", "c /c.wav\n"), "the first is c: is in wav.scp and not in text and utt2spk"),
    "text has more": (
        append("text", "c C\nd D\n"),
        "2 of 4 utterances (50.0%) cannot be used, the first is c: is in text and not in wav.scp and utt2spk",
    ),
    "utt2spk has more": (append("utt2spk", "c anna\n"), "the first is c: is in utt2spk and not in wav.scp and text"),
    "twice in wav.scp": (append("wav.scp", "b /again.wav\n"), "wav.scp:3: b is there twice, first in line 1"),
    "twice in text": (append("text", "a again\n"), "text:3: a is there twice, first in line 1"),
    "no path": (append("wav.scp", "c\n"), "wav.scp:3: c has no value"),
    "a command": (
        lambda root: (root / "wav.scp").write_text("a sox x.flac -t wav - |\nb /b.wav\n"),
        "wav.scp: a is the output of a command",
    ),
    "a path of Windows": (
        lambda root: (root / "wav.scp").write_text("a C:\\speech\\a.wav\nb /b.wav\n"),
        "the first is a: C:\\speech\\a.wav: no such file: C:\\speech\\a.wav is a path of Windows",
    ),
    "speaker with a space": (
        lambda root: (root / "utt2spk").write_text("a anna maria\nb bert\n"),
        "the first is a: {root}/my recordings/a.wav: the speaker of a has a space in it: 'anna maria'",
    ),
    "spk2utt disagrees": (
        lambda root: (root / "spk2utt").write_text("anna a b\n"),
        "utt2spk and spk2utt disagree about speaker anna: b",
    ),
    "latin-1 text": (append("text", b"c na\xefve\n"), "text:3: byte 0xef"),
    "empty wav.scp": (lambda root: (root / "wav.scp").write_text("\n"), "wav.scp names no utterance"),
    "empty transcript": (lambda root: (root / "text").write_text("a\nb B\n"), "the first is a: empty transcript"),
    "missing wav": (lambda root: (root / "my recordings" / "a.wav").unlink(), "a.wav: cannot be opened"),
}


@pytest.mark.parametrize("case", BAD_KALDI)
def test_own_data_that_is_wrong_is_named(case: str, kaldi: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    output = tmp_path / "kaldi"
    prepare(str(kaldi), str(output))
    damage, message = BAD_KALDI[case]
    damage(kaldi)
    assert message.format(root=kaldi) in fails("prepare", "--src-dir", kaldi, "--des-dir", output, unchanged=output)


def test_a_line_too_much_costs_no_more_than_itself(kaldi: Path, tmp_path: Path) -> None:
    append("text", "c C\n")(kaldi)
    result = prepare(str(kaldi), str(tmp_path / "kaldi"), max_reject_share=0.5)
    assert {name: result.counts[name] for name in UTTERANCES} == {
        "inputs": 3, "outputs": 2, "rejects": 1, "speakers": 2,
    }  # fmt: skip
    assert (tmp_path / "kaldi/rejects.tsv").read_text() == "utt\treason\nc\tis in text and not in wav.scp and utt2spk\n"


@pytest.mark.medium
def test_a_store_that_does_not_answer_is_no_fault_of_the_utterances(
    kaldi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(patience, "OUTAGE_SECONDS", 0.1)
    (kaldi / "wav.scp").write_text("a s3://bucket/a.wav\nb s3://bucket/b.wav\n")
    with pytest.raises(OutageError, match="s3://bucket/"):
        prepare(str(kaldi), str(tmp_path / "out"), max_reject_share=1.0)
    assert not (tmp_path / "out" / "rejects.tsv").exists()


def test_a_source_that_is_missing_or_holds_no_speech(tmp_path: Path, fails: Callable[..., str]) -> None:
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    empty.mkdir()
    assert f"{absent} does not exist" in fails(
        "prepare", "--src_dir", absent, "--des_dir", tmp_path / "k", unchanged=tmp_path
    )
    error = fails("prepare", "--src_dir", empty, "--des_dir", tmp_path / "k", unchanged=tmp_path)
    assert f"{empty}: neither SPEAKER/CHAPTER/UTTERANCE.wav nor Kaldi files" in error


def test_nothing_usable_is_an_error_whatever_share_is_allowed(libritts: Path, tmp_path: Path) -> None:
    for transcript in libritts.rglob("*.normalized.txt"):
        transcript.unlink()
    with pytest.raises(CosyFlowError, match=r"4 of 4 utterances .* nothing left"):
        prepare(str(libritts), str(tmp_path / "kaldi"), max_reject_share=1)


@pytest.mark.medium
def test_a_corpus_in_a_store_is_prepared_there(libritts: Path, s3_folder: str) -> None:
    from cosyflow import storage

    storage.upload_tree(libritts, storage.join(s3_folder, "dev-clean"))
    prepare(storage.join(s3_folder, "dev-clean"), storage.join(s3_folder, "kaldi"))
    utterances = read_kaldi(storage.join(s3_folder, "kaldi")).utterances
    assert utterances[0].wav == f"{s3_folder}/dev-clean/174/5/174_5_000001_000000.wav"
    assert len(utterances) == 4


def test_the_command_rejects_what_the_samples_show(libritts: Path, tmp_path: Path) -> None:
    soundfile.write(bad_wav(libritts), np.zeros(24_000), 24_000, subtype="PCM_16")
    options = ["prepare", "--src_dir", str(libritts), "--des_dir", str(tmp_path / "out"), "--max_reject_share", "0.25"]
    assert main(options) == 0
    assert read_rejects(str(tmp_path / "out")) == {BAD: f"{bad_wav(libritts)}: silent: -100 dB of full scale"}
    assert main([*options, "--check_audio", "header"]) == 0
    assert not read_rejects(str(tmp_path / "out"))
    assert main([*options, "--min-level", "-1", "--max_reject_share", "0"]) == 1


def test_blanks_around_a_transcript_are_removed(libritts: Path, tmp_path: Path) -> None:
    """And those inside it stay."""
    bad_text(libritts).write_text(" \ttwo  words \n")
    prepare(str(libritts), str(tmp_path / "out"))
    lines = (tmp_path / "out" / "text").read_text().splitlines()
    assert f"{BAD} two  words" in lines
