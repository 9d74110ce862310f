"""What an import promises: every file is counted, names are safe, dev is split off, nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow import storage
from cosyflow.cli import main
from cosyflow.corpus.importing.naming import Names, speakers_of
from cosyflow.corpus.importing.run import ImportSettings, import_corpus
from cosyflow.corpus.importing.split import MANY_SPEAKERS, dev_utterances
from cosyflow.corpus.kaldi import read_kaldi
from cosyflow.corpus.names import why_no_name
from cosyflow.corpus.prepare import prepare
from cosyflow.corpus.rejects import read_rejects
from cosyflow.errors import CosyFlowError, RefusalError

from ..conftest import snapshot
from .conftest import Corpus, audio


def pairs(corpus: Corpus, *names: str) -> None:
    for number, name in enumerate(names):
        corpus.put(f"{name}.wav", audio(number))
        corpus.put(f"{name}.txt", f"Text {number}.")


def test_the_command_shows_utterances_and_a_summary(local_corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(local_corpus, *(f"anna/a{n}" for n in range(7)), "bert/b")
    local_corpus.put("bert/b.wav", b"x")
    assert main(["import", local_corpus.place, local_corpus.dst]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        *(f"a{n}  anna  0.25 s  Text {n}." for n in range(5)),
        "seen      16",
        "taken     7: 0.0005 hours, 1 speakers",
        "rejected  1: 1 not an audio file that is read here",
        "ignored   8: 8 transcripts and other texts",
        f"written   {local_corpus.dst}: train, dev, names.tsv, rejects.tsv",
    ]
    assert list(read_rejects(local_corpus.dst)) == ["bert/b"]
    assert len(read_kaldi(f"{local_corpus.dst}/dev").utterances) == 1


def test_json_is_the_only_output_and_a_dry_run_writes_nothing(
    local_corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs(local_corpus, "a/1", "b/2")
    before = snapshot(local_corpus.built.parent)
    options = ["--dry-run", "--format", "json", "--dev-share", "0.5", "--seed", "3"]
    assert main(["import", local_corpus.place, local_corpus.dst, *options]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "seen": 4, "taken": 2, "rejected": {}, "ignored": {"transcripts and other texts": 2}, "speakers": 2,
        "hours": 0.0001,
    }  # fmt: skip
    assert snapshot(local_corpus.built.parent) == before


def test_what_was_imported_can_be_prepared(corpus: Corpus) -> None:
    pairs(corpus, "anna/1", "anna/2", "bert/1")
    corpus.run()
    result = prepare(storage.join(corpus.dst, "train"), storage.join(corpus.dst, "..", "prepared"))
    assert (result.counts["outputs"], result.counts["rejects"]) == (3, 0)


def test_names_are_safe_and_a_table_tells_those_of_the_source(local_corpus: Corpus) -> None:
    local_corpus.put("new\nline/x\n.wav", audio(1))
    local_corpus.put("new\nline/x\n.txt", "Hi.")
    pairs(local_corpus, "Anna Maria/Guten Tag", "Anna\u3000Maria/Guten\xa0Tag", "x/-", f"x/{'ü' * 120}")
    local_corpus.run()
    heard = local_corpus.heard()
    assert {"Guten_Tag", "Anna_Maria_Guten_Tag", "-"} < heard.keys()
    assert not any(map(why_no_name, heard))
    rows = [line.split("\t") for line in Path(local_corpus.dst, "names.tsv").read_text().splitlines()]
    assert rows[0] == ["utt", "spk", "source", "source_spk"]
    assert {row[2]: row[3] for row in rows[1:] if "Guten" in row[2]} == {
        "Anna Maria/Guten Tag": "Anna Maria",
        "Anna\\u3000Maria/Guten\\xa0Tag": "Anna\\u3000Maria",
    }
    speakers = {spk for spk, _ in heard.values()}
    assert {"Anna_Maria", "Anna_Maria_2", "x", "new_line"} == speakers
    copied = Path(local_corpus.utterances()["x_"].wav)  # no line can hold its path
    assert copied == Path(local_corpus.dst, "audio", "x_.wav")
    assert copied.read_bytes() == audio(1)


ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(st.lists(ODD, max_size=20))
def test_every_utterance_gets_a_name_of_its_own_that_files_can_have(sources: list[str]) -> None:
    names = Names()
    given_names = [names.utterance(source) for source in sources]
    assert len(set(given_names)) == len(sources)
    for name in given_names:
        assert why_no_name(name) is None
        assert "/" not in name
        assert not name.startswith(".")
        assert len(f".{name}.opus.0123456789ab.part".encode()) <= 255


@given(st.lists(ODD, max_size=20))
def test_different_speakers_stay_different(told: list[str]) -> None:
    names = speakers_of(told)
    assert len(set(names.values())) == len(set(told))
    assert not any(map(why_no_name, names.values()))


@given(
    speakers=st.dictionaries(st.text(max_size=5), st.integers(0, 40).map(str), min_size=1, max_size=200),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 5),
)
def test_dev_is_split_off_by_speaker_where_there_are_many(speakers: dict[str, str], share: float, seed: int) -> None:
    dev = dev_utterances(speakers, share, seed)
    assert dev == dev_utterances(dict(sorted(speakers.items(), reverse=True)), share, seed)
    assert dev < speakers.keys()
    assert bool(dev) == (share > 0 and len(speakers) > 1)
    if len(set(speakers.values())) >= MANY_SPEAKERS:
        heard = {speakers[utt] for utt in dev}
        assert not heard & {spk for utt, spk in speakers.items() if utt not in dev}


def test_another_seed_chooses_others() -> None:
    speakers = {f"u{n}": "one" for n in range(100)}
    assert len(dev_utterances(speakers, 0.1, 0)) == 10
    assert dev_utterances(speakers, 0.1, 0) != dev_utterances(speakers, 0.1, 1)


def test_an_import_can_be_done_again_and_other_folders_are_left(local_corpus: Corpus) -> None:
    pairs(local_corpus, "a/1", "a/2")
    import_settings = ImportSettings(dev_share=0.5)
    local_corpus.run(import_settings)
    first = snapshot(Path(local_corpus.dst))
    local_corpus.run(import_settings)
    assert snapshot(Path(local_corpus.dst)) == first
    local_corpus.run()
    assert not Path(local_corpus.dst, "dev").exists()
    other = local_corpus.built.parent / "other"
    other.mkdir()
    (other / "thesis.doc").write_text("x")
    for place in (other, local_corpus.built):
        with pytest.raises(RefusalError, match="DST"):
            import_corpus(local_corpus.place, str(place))
    assert (other / "thesis.doc").exists()


def test_an_import_into_the_source_does_not_read_itself(local_corpus: Corpus) -> None:
    pairs(local_corpus, "a/1", "a/2")
    dst = f"{local_corpus.place}/imported"
    first = import_corpus(local_corpus.place, dst).as_json()
    assert import_corpus(local_corpus.place, dst).as_json() == first


def test_an_interrupted_import_can_be_done_again(
    local_corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs(local_corpus, "a/1", "a/2")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cosyflow.corpus.importing.target.write_kaldi", interrupt)
    assert main(["import", local_corpus.place, local_corpus.dst]) == 130
    monkeypatch.undo()
    assert main(["import", local_corpus.place, local_corpus.dst]) == 0
    assert "taken     2" in capsys.readouterr().out


def test_silence_and_other_unfit_audio_is_rejected_by_the_command(
    local_corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs(local_corpus, "a/1", "a/2", "a/3", "a/4")
    wav = bytearray(audio(1))
    wav[44:] = bytes(len(wav) - 44)
    local_corpus.put("a/2.wav", bytes(wav))
    local_corpus.put("a/3.wav", audio(3)[:-100])
    local_corpus.put("a/4.txt", " \n")
    assert main(["import", local_corpus.place, local_corpus.dst, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rejected"] == {"empty transcript": 1, "silent": 1, "truncated": 1}


def test_nothing_usable_and_no_source_are_errors(local_corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(local_corpus, "a/1")
    local_corpus.put("a/1.wav", b"x")
    assert main(["import", local_corpus.place, local_corpus.dst]) == 1
    assert "nothing can be used, the first is a/1: not an audio file" in capsys.readouterr().err
    assert main(["import", f"{local_corpus.place}/none", local_corpus.dst]) == 2
    assert "error: SRC: " in capsys.readouterr().err
    assert main(["import", local_corpus.place, local_corpus.dst, "--dev-share", "1"]) == 2
    assert "error: --dev-share: " in capsys.readouterr().err


def test_formats_without_a_decoder_are_rejected_and_with_ffmpeg_are_taken(
    local_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs(local_corpus, "a/1")
    local_corpus.put("a/2.m4a", b"\0\0\0\x20ftypM4A " + bytes(99))
    local_corpus.put("a/2.txt", "Two.")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert local_corpus.run().reasons == {"no decoder for m4a": 1}
    (tmp_path / "decoded.wav").write_bytes(audio(2))
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path}/decoded.wav\n")
    program.chmod(stat.S_IRWXU)
    assert not local_corpus.run().reasons
    wav = local_corpus.utterances()["2"].wav
    assert wav == f"{local_corpus.dst}/audio/2.wav"
    assert Path(wav).read_bytes() == audio(2)


def test_ffmpeg_itself_reads_m4a(local_corpus: Corpus, tmp_path: Path) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not installed")
    (tmp_path / "a.wav").write_bytes(audio(1, seconds=1))
    (local_corpus.built / "a").mkdir()
    subprocess.run([program, "-v", "error", "-i", f"{tmp_path}/a.wav", f"{local_corpus.built}/a/1.m4a"], check=True)
    local_corpus.put("a/1.txt", "One.")
    assert not local_corpus.run().reasons


NAMES = st.sampled_from(["a", "b", "a b", "x\u3000", "ü", ".h", "A", "a.b", "1", "metadata", "#t=1,2", "\n"])
ENDINGS = st.sampled_from([".wav", ".WAV", ".flac", ".txt", ".TXT", ".lab", ".json", ".jpg", "", ".mp3", ".tar.gz"])
TREES = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=4).map("/".join), ENDINGS), min_size=1, max_size=12)


@pytest.mark.medium
@settings(max_examples=40, deadline=None)
@given(files=TREES, links=st.lists(st.tuples(NAMES, st.sampled_from(["", "a", "nowhere"])), max_size=2))
def test_nothing_of_a_tree_vanishes(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]], links: list[tuple[str, str]]
) -> None:
    root = tmp_path_factory.mktemp("generated") / "tree"
    corpus = Corpus(root, str(root))
    pairs(corpus, "good/sound")
    for name, ending in files:
        path = root / f"{name}{ending}"
        if not any(parent.is_file() for parent in path.parents) and not path.exists():
            content = {".json": '{"text": "Hi."}', ".wav": audio(1), ".WAV": audio(2), ".flac": audio(3, "FLAC")}
            corpus.put(f"{name}{ending}", content.get(ending, "Hi."))
    for name, target in links:
        if not os.path.lexists(root / name):
            (root / name).symlink_to(root / target if target else root)
    summary = corpus.run()
    assert "sound" in corpus.heard()
    assert summary.seen == sum(1 for _ in _leaves(str(root), frozenset()))
    assert all(unicodedata.category(letter)[0] != "Z" for utt in corpus.heard() for letter in utt)


def _leaves(folder: str, above: frozenset[tuple[int, int]]) -> list[str]:
    """Everything that is no folder, by a walk of its own."""
    status = os.stat(folder)  # noqa: PTH116
    here = above | {(status.st_dev, status.st_ino)}
    found: list[str] = []
    for entry in os.scandir(folder):
        is_inner = os.path.isdir(entry.path) and (entry.stat().st_dev, entry.stat().st_ino) not in here  # noqa: PTH112
        found += _leaves(entry.path, here) if is_inner else [entry.path]
    return found


@pytest.mark.slow
def test_a_source_that_does_not_answer_stops_the_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cosyflow.storage import patience

    monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(patience, "OUTAGE_SECONDS", 0.1)
    with pytest.raises(CosyFlowError, match="s3://bucket/corpus"):
        import_corpus("s3://bucket/corpus", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
