"""Trees of speech as people have them: whatever lies below the source becomes an utterance, a reject or a count."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.cli import main
from cosyflow.corpus.kaldi import read_kaldi
from cosyflow.corpus.prepare import prepare
from cosyflow.corpus.rejects import read_rejects
from cosyflow.errors import CosyFlowError
from cosyflow.stage import StageResult

from .conftest import write_wav


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "a.wav"
    write_wav(path)
    return path


def put(recording: Path, root: Path, name: str, text: str = "Hi.") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(recording, path)
    path.with_name(f"{path.stem}.normalized.txt").write_text(text)
    return path


def prepared(root: Path, share: float = 1.0) -> tuple[StageResult, dict[str, str], dict[str, str]]:
    """The result, and speaker and audio by utterance as the next stage reads them."""
    output = root.parent / "prepared"
    result = prepare(str(root), str(output), max_reject_share=share)
    utterances = read_kaldi(str(output)).utterances
    assert result.counts["seen"] == result.counts["outputs"] + result.counts["rejects"] + result.counts["ignored"]
    assert result.counts["ignored"] == sum(result.details["ignored"].values())
    return result, {each.utt: each.spk for each in utterances}, {each.utt: each.wav for each in utterances}


def test_links_case_formats_and_depth_are_no_reason_to_leave_speech_out(recording: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name in ("s1/c/s1_1.wav", "s1/c/s1_2.WAV", "s1/c/s1_3.flac", "s3/s3_1.wav", "s4/c/d/s4_1.wav", "s5_1.wav"):
        put(recording, root, name)
    put(recording, tmp_path / "elsewhere" / "s2", "c/s2_1.wav")
    (root / "s2").symlink_to(tmp_path / "elsewhere" / "s2")
    result, speakers, wavs = prepared(root, share=0)
    assert speakers == {f"s{n}_{m}": f"s{n}" for n, m in ((1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (4, 1), (5, 1))}
    assert wavs["s2_1"] == f"{root}/s2/c/s2_1.wav"
    assert result.details["ignored"] == {"transcripts and other texts": 7}


def test_what_is_no_utterance_is_counted_by_reason(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "tree"
    put(recording, root, "s1/c/s1_1.wav")
    shutil.copy(recording, root / "s1" / "c" / "s1_1.flac")
    (root / "s1" / "c" / "s1_9.normalized.txt").write_text("Lost.")
    (root / "s1" / "c" / ".s1_1.wav").write_bytes(b"x")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._s1_1.wav").write_bytes(b"x")
    (root / "SPEAKERS.txt").write_text("s1")
    (root / "cover.jpg").write_bytes(b"x")
    (root / "s1" / "again").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(root / "pipe")
    result, _, wavs = prepared(root, share=0)
    assert wavs == {"s1_1": f"{root}/s1/c/s1_1.wav"}
    assert result.details["ignored"] == {
        "dangling symlink": 1,
        "hidden files": 2,
        "neither a file nor a folder": 1,
        "other files": 1,
        "other formats of the same utterance": 1,
        "symlink to a folder that it lies in": 1,
        "transcripts and other texts": 2,
        "transcripts without audio": 1,
    }
    assert "ignored: 1 dangling symlink, 2 hidden files" in capsys.readouterr().out


def test_audio_that_cannot_be_read_is_a_reject(recording: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    put(recording, root, "s1/c/s1_1.wav")
    (root / "s1" / "c" / "s1_2.wav").symlink_to(tmp_path / "nothing.wav")
    (root / "s1" / "c" / "s1_3.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(99))
    (root / "s1" / "c" / "s1_3.normalized.txt").write_text("Hi.")
    prepared(root)
    rejects = read_rejects(str(tmp_path / "prepared"))
    assert "s1_2.wav: a dangling symlink" in rejects["s1_2"]
    assert "s1_3.m4a: not an audio file that is read here" in rejects["s1_3"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_stops_the_stage(recording: Path, tmp_path: Path) -> None:
    put(recording, tmp_path / "tree", "s1/c/s1_1.wav")
    (tmp_path / "tree" / "s1").chmod(0)
    with pytest.raises(CosyFlowError, match="s1 cannot be read"):
        prepare(str(tmp_path / "tree"), str(tmp_path / "out"))


def test_the_folder_says_who_speaks_and_the_disagreement_is_told_once(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "tree"
    for name in ("alice/c/utt_1.wav", "bob/c/utt_2.wav", "carol/c/carol_3.wav"):
        put(recording, root, name)
    _, speakers, _ = prepared(root, share=0)
    assert speakers == {"utt_1": "alice", "utt_2": "bob", "carol_3": "carol"}
    told = [line for line in capsys.readouterr().out.splitlines() if "do not begin with the speaker" in line]
    assert len(told) == 1
    assert "2 of 3 file names" in told[0]
    assert "alice speaks alice/c/utt_1.wav" in told[0]


def test_files_of_the_same_name_get_names_of_their_own(recording: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name in ("alice/c/1.wav", "bob/c/1.wav", "bob/c/2.wav", "a/b_c_1.wav", "a_b/c_1.wav", "a/b/c_1.flac"):
        put(recording, root, name)
    _, speakers, wavs = prepared(root, share=0)
    assert speakers == {
        "2": "bob", "alice_c_1": "alice", "bob_c_1": "bob", "b_c_1": "a", "a_b_c_1": "a", "a_b_c_1_2": "a_b",
    }  # fmt: skip
    assert len(set(wavs.values())) == 6
    first = (tmp_path / "prepared" / "wav.scp").read_bytes()
    prepared(root)
    assert (tmp_path / "prepared" / "wav.scp").read_bytes() == first


BLANKS = {"space": " ", "ideographic": "\u3000", "no-break": "\xa0", "next line": "\x85", "line": "\u2028", "tab": "\t"}


@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_in_a_name_costs_that_utterance_alone(recording: Path, tmp_path: Path, blank: str) -> None:
    root = tmp_path / "tree"
    put(recording, root, "s1/c/s1_a.wav")
    put(recording, root, f"s1/c/s1_b{BLANKS[blank]}2.wav")
    put(recording, root, f"s{BLANKS[blank]}2/c/s2_c.wav")
    arguments = ["--src_dir", str(root), "--des_dir", str(tmp_path / "prepared"), "--max_reject_share", "0.7"]
    assert main(["prepare", *arguments]) == 0
    assert [each.utt for each in read_kaldi(str(tmp_path / "prepared")).utterances] == ["s1_a"]
    rejects = read_rejects(str(tmp_path / "prepared"))
    assert len(rejects) == 2
    assert any("is no name of an utterance" in reason for reason in rejects.values())
    assert "the speaker of s2_c has a" in rejects["s2_c"]


def test_names_that_are_no_text_or_have_line_ends_are_rejects(recording: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    put(recording, root, "s1/c/s1_a.wav")
    put(recording, root, os.fsdecode(b"s1/c/s1_\xe9.wav"))
    put(recording, root, "s1/c/s1_b\n2.wav")
    put(recording, root, "s1/new\nline/s1_c.wav")
    result, speakers, _ = prepared(root)
    assert speakers == {"s1_a": "s1"}
    assert result.counts["rejects"] == 3
    assert set(read_rejects(str(tmp_path / "prepared"))) == {"s1_\\udce9", "s1_b\\n2", "s1_c"}


PARTS = st.sampled_from(
    ["s1", "s2", "c", "a_1", "s1_1", "s1_2", "S1", "ü", "x y", "x\u3000y", ".hidden", "a#t=1,2", "-", "a.b", "\n"]
)
SUFFIXES = st.sampled_from([".wav", ".WAV", ".flac", ".Mp3", ".txt", ".normalized.txt", ".jpg", "", ".m4a"])
FILES = st.lists(st.tuples(st.lists(PARTS, min_size=1, max_size=5).map("/".join), SUFFIXES), min_size=1, max_size=12)


@pytest.mark.medium
@settings(max_examples=60, deadline=None)
@given(files=FILES, links=st.lists(st.tuples(PARTS, st.sampled_from(["", "s1", "nowhere", "../outside"])), max_size=3))
def test_nothing_below_the_source_vanishes(
    tmp_path_factory: pytest.TempPathFactory,
    recording: Path,
    files: list[tuple[str, str]],
    links: list[tuple[str, str]],
) -> None:
    root = tmp_path_factory.mktemp("generated") / "tree"
    outside = root.parent / "outside"
    put(recording, outside, "s9/s9_1.wav")
    put(recording, root, "good/c/good_1.wav")
    for name, suffix in files:
        path = root / f"{name}{suffix}"
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("Hi.") if suffix.endswith("txt") else shutil.copy(recording, path)
    for name, target in links:
        if not (root / name).exists() and not (root / name).is_symlink():
            (root / name).symlink_to(root / target if target else root)
    result, speakers, wavs = prepared(root)
    assert "good_1" in speakers
    assert len(set(wavs.values())) == len(wavs) == result.counts["outputs"]
    assert result.counts["seen"] == sum(_leaves(str(root), Counter()).values())


def _leaves(folder: str, above: Counter[tuple[int, int]]) -> Counter[str]:
    """Everything that is no folder, counted by a walk of its own."""
    status = os.stat(folder)  # noqa: PTH116
    here = above + Counter([(status.st_dev, status.st_ino)])
    count: Counter[str] = Counter()
    for entry in os.scandir(folder):
        is_inner = os.path.isdir(entry.path) and not here[entry.stat().st_dev, entry.stat().st_ino]  # noqa: PTH112
        count += _leaves(entry.path, here) if is_inner else Counter([entry.path])
    return count
