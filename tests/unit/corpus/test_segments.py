"""Parts of recordings: read from `segments`, cut by samples, known by the recording's content, embedded alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from cosyflow import storage
from cosyflow.audio.opener import read_samples
from cosyflow.content import Digests
from cosyflow.corpus.kaldi import read_kaldi, wavs_of
from cosyflow.corpus.prepare import prepare
from cosyflow.corpus.rejects import read_rejects
from cosyflow.corpus.source import folder_digest
from cosyflow.dataset.parquet import make_parquet
from cosyflow.errors import CosyFlowError

from .conftest import snapshot, write_wav

RATE = 24_000


def write(folder: Path, **tables: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in tables.items():
        (folder / name.replace("wav_scp", "wav.scp")).write_text(lines)
    return str(folder)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A Kaldi folder of three segments of two recordings; the name of one looks like a segment."""
    rng = np.random.default_rng(0)
    for name in ("one.wav", "two.wav#t=1,2"):
        soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, 2 * RATE), RATE, format="WAV", subtype="PCM_16")
    write(
        tmp_path / "own",
        wav_scp=f"r1 {tmp_path}/one.wav\nr2 {tmp_path}/two.wav#t=1,2\n",
        segments="a r1 0.0 0.5\nb r1 0.50001 1.25\nc r2 1 -1\n",
        text="a A.\nb B.\nc C.\n",
        utt2spk="a s\nb s\nc t\n",
    )
    return tmp_path


def test_segments_are_cut_by_samples_out_of_their_recordings(recordings: Path) -> None:
    prepare(str(recordings / "own"), str(recordings / "out"))
    wavs = {each.utt: each.wav for each in read_kaldi(str(recordings / "out")).utterances}
    assert wavs == {
        "a": f"{recordings}/one.wav#t=0,0.5",
        "b": f"{recordings}/one.wav#t=0.50001,1.25",
        "c": f"{recordings}/two.wav#t=1,2#t=1",
    }
    assert (recordings / "out" / "utt2dur").read_text() == "a 0.5000\nb 0.7500\nc 1.0000\n"
    one, two = (soundfile.read(recordings / name, dtype="float32")[0] for name in ("one.wav", "two.wav#t=1,2"))
    for utt, expected in (("a", one[:12000]), ("b", one[12000:30000]), ("c", two[24000:])):
        assert np.array_equal(read_samples(wavs[utt])[0][:, 0], expected)
    first = snapshot(recordings / "out")
    prepare(str(recordings / "out"), str(recordings / "again"))
    assert snapshot(recordings / "again") == first


def test_stages_read_a_folder_with_segments_themselves(recordings: Path) -> None:
    wavs = [each.wav for each in read_kaldi(str(recordings / "own")).utterances]
    assert wavs[0] == f"{recordings}/one.wav#t=0,0.5"


def test_a_shard_holds_the_samples_of_its_segments_and_no_others(recordings: Path) -> None:
    prepare(str(recordings / "own"), str(recordings / "out"))
    make_parquet(str(recordings / "out"), None, None, str(recordings / "shards"))
    table = pq.read_table(recordings / "shards" / "parquet_000000000.tar")
    assert table["utt"].to_pylist() == ["a", "b", "c"]
    for utt, wav, audio in zip(*(table[name].to_pylist() for name in ("utt", "wav", "audio_data")), strict=True):
        samples, rate = read_samples(audio)
        assert rate == RATE
        assert np.array_equal(samples, read_samples(wav)[0]), utt
    written = snapshot(recordings / "shards")
    make_parquet(str(recordings / "out"), None, None, str(recordings / "shards"))
    assert snapshot(recordings / "shards") == written


def test_the_content_of_a_recording_is_that_of_its_segments(recordings: Path) -> None:
    prepare(str(recordings / "own"), str(recordings / "out"))
    for folder in ("own", "out"):
        assert wavs_of(str(recordings / folder)) == [f"{recordings}/one.wav", f"{recordings}/two.wav#t=1,2"]
        before = folder_digest(str(recordings / folder), Digests())
        write_wav(recordings / "one.wav", seconds=2 if folder == "own" else 2.5)
        assert folder_digest(str(recordings / folder), Digests()) != before


def test_what_is_wrong_with_a_segment_costs_that_segment(recordings: Path) -> None:
    write(
        recordings / "own",
        segments="a r1 0.0 0.5\nb nowhere 0 1\nc r2 1 2.4\nd r2 1 2.6\ne r1 2.0 -1\n",
        text="a A.\nb B.\nc C.\nd D.\ne E.\n",
        utt2spk="a s\nb s\nc t\nd t\ne t\n",
    )
    result = prepare(str(recordings / "own"), str(recordings / "out"), max_reject_share=0.9)
    assert (result.counts["inputs"], result.counts["rejects"]) == (5, 3)
    reasons = read_rejects(str(recordings / "out"))
    assert "no recording: nowhere, which segments names" in reasons["b"]
    assert "segment beyond the end: 2.00 s long, it is 1 to 2.6" in reasons["d"]
    assert "segment beyond the end: 2.00 s long, it is 2 to its end" in reasons["e"]
    # Kaldi lets a segment end half a second late
    assert [each.wav for each in read_kaldi(str(recordings / "out")).utterances][1].endswith("#t=1,2#t=1")


def test_recordings_without_a_segment_and_audio_that_is_not_named_are_counted(recordings: Path) -> None:
    write(recordings / "own", wav_scp=(recordings / "own" / "wav.scp").read_text() + "r3 /nowhere.wav\n")
    write_wav(recordings / "own" / "left.wav")
    result = prepare(str(recordings / "own"), str(recordings / "out"))
    assert result.details["ignored"] == {"recordings without a segment": 1, "audio that wav.scp does not name": 1}
    assert result.counts["seen"] == 3 + 2


@pytest.mark.parametrize("line", ["a r1", "a r1 0", "a r1 x 1", "a r1 1 1", "a r1 -1 1", "a r1 0 nan", "a r1 0 inf"])
def test_a_line_that_is_no_segment_is_named(recordings: Path, line: str, fails: Callable[..., str]) -> None:
    own = write(recordings / "own", segments=f"{line}\n", text="a A.\n", utt2spk="a s\n")
    assert "segments: a: " in fails("prepare", "--src_dir", own, "--des_dir", recordings / "k", unchanged=recordings)


def test_segments_and_text_that_disagree_are_named(recordings: Path) -> None:
    write(recordings / "own", text="a A.\nb B.\n")
    with pytest.raises(CosyFlowError, match=r"the first is c: is in segments and not in text;"):
        prepare(str(recordings / "own"), str(recordings / "out"))


def test_segments_of_a_part_of_a_file_begin_there(recordings: Path) -> None:
    write(
        recordings / "own",
        wav_scp=f"r1 {recordings}/one.wav#t=0.5,1.5\n",
        segments="a r1 0.25 0.5\nb r1 0.5 -1\n",
        text="a A.\nb B.\n",
        utt2spk="a s\nb s\n",
    )
    prepare(str(recordings / "own"), str(recordings / "out"))
    assert [each.wav.partition("#")[2] for each in read_kaldi(str(recordings / "out")).utterances] == [
        "t=0.75,1", "t=1,1.5",
    ]  # fmt: skip


def test_segments_in_a_store(recordings: Path, s3_folder: str) -> None:
    storage.write_bytes(storage.join(s3_folder, "one.wav"), (recordings / "one.wav").read_bytes())
    write(recordings / "own", wav_scp="r1 one.wav\n", segments="a r1 0.5 1\n", text="a A.\n", utt2spk="a s\n")
    storage.upload_tree(recordings / "own", s3_folder)
    prepare(s3_folder, storage.join(s3_folder, "out"))
    (utterance,) = read_kaldi(storage.join(s3_folder, "out")).utterances
    assert utterance.wav == f"{s3_folder}/one.wav#t=0.5,1"
    expected = soundfile.read(recordings / "one.wav", dtype="float32")[0][12000:24000]
    assert np.array_equal(read_samples(utterance.wav)[0][:, 0], expected)


@pytest.mark.parametrize("entry", ["/x/" + "a" * 300, "a" * 5000, "a\0b", "/\0", "x" * 300 + "#t=0,1"])
def test_an_entry_that_cannot_be_a_name_costs_that_utterance(recordings: Path, entry: str) -> None:
    write(recordings / "odd", wav_scp=f"a {entry}\nb {recordings}/one.wav\n", text="a A.\nb B.\n", utt2spk="a s\nb s\n")
    prepare(str(recordings / "odd"), str(recordings / "out"), max_reject_share=0.5)
    assert "cannot be opened" in read_rejects(str(recordings / "out"))["a"]
