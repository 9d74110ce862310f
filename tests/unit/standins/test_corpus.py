"""The demo corpus is speech in LibriTTS layout, the same at every call, and is served like the real one."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
import wave
from pathlib import Path

import numpy as np
import pytest

from cosyflow.corpus.archive import unpack
from cosyflow.errors import CosyFlowError
from cosyflow.standins import espeak
from cosyflow.standins.corpus import SPEAKERS, Speaker, pack_corpus, serve, speak_corpus
from cosyflow.standins.sentences import sentences

TWO = (
    Speaker("train-clean-100", 9001, 100101, 3, "gmw/en-US+m1", 40, 165),
    Speaker("dev-clean", 9002, 100102, 2, "gmw/en+f2", 60, 160),
)
needs_espeak = pytest.mark.skipif(not espeak.is_installed(), reason="needs the optional dependency `demo`")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as wav:
        assert (wav.getframerate(), wav.getsampwidth(), wav.getnchannels()) == (24_000, 2, 1)
        return np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2")


def test_the_full_corpus_has_every_subset_and_enough_to_say() -> None:
    assert {speaker.subset for speaker in SPEAKERS} == {
        "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other",
    }  # fmt: skip
    assert 80 <= sum(speaker.utterances for speaker in SPEAKERS) <= len(sentences())
    assert len({speaker.spk for speaker in SPEAKERS}) == len(SPEAKERS)
    assert len({spoken for spoken, _ in sentences()}) == len(sentences())
    assert any(spoken != printed for spoken, printed in sentences())


@needs_espeak
def test_a_spoken_corpus_is_libritts_and_the_same_at_every_call(tmp_path: Path) -> None:
    assert speak_corpus(tmp_path / "one", TWO) == 5
    speak_corpus(tmp_path / "two", TWO)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    folder = tmp_path / "one" / "dev-clean" / "9002" / "100102"
    assert sorted(path.name for path in folder.iterdir())[:3] == [
        "9002_100102_000000_000000.normalized.txt",
        "9002_100102_000000_000000.original.txt",
        "9002_100102_000000_000000.wav",
    ]
    assert (folder / "9002_100102_000000_000000.normalized.txt").read_text().startswith("Put the kettle on")
    assert "Dr." in (folder / "9002_100102_000000_000000.original.txt").read_text()


@needs_espeak
def test_what_is_spoken_is_audible_and_differs_by_voice_and_sentence(tmp_path: Path) -> None:
    speak_corpus(tmp_path / "corpus", TWO)
    recordings = [read_samples(path) for path in sorted((tmp_path / "corpus").rglob("*.wav"))]
    assert len(recordings) == 5
    for samples in recordings:
        assert 1.5 < len(samples) / 24_000 < 8
        assert 500 < np.sqrt(np.mean(samples.astype(float) ** 2)) < 10_000
        assert np.abs(samples.astype(int)).max() < 32_767
    assert len({samples.tobytes() for samples in recordings}) == 5


@needs_espeak
def test_a_finished_corpus_is_kept_and_another_folder_is_not_replaced(tmp_path: Path) -> None:
    speak_corpus(tmp_path / "corpus", TWO)
    wav = next((tmp_path / "corpus").rglob("*.wav"))
    before = wav.stat().st_mtime_ns
    speak_corpus(tmp_path / "corpus", TWO)
    assert wav.stat().st_mtime_ns == before
    with pytest.raises(CosyFlowError, match="holds another corpus"):
        speak_corpus(tmp_path / "corpus", TWO[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]


@needs_espeak
def test_a_voice_that_does_not_exist_leaves_nothing(tmp_path: Path) -> None:
    unknown = Speaker("dev-clean", 1, 1, 1, "gmw/none", 50, 160)
    with pytest.raises(CosyFlowError, match="the voice gmw/none"):
        speak_corpus(tmp_path / "corpus", [unknown])
    assert list(tmp_path.iterdir()) == []


def test_without_the_engine_the_error_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "is_installed", lambda: False)
    with pytest.raises(CosyFlowError, match="pip install espeakng-loader"):
        speak_corpus(tmp_path / "corpus", TWO)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "dev-clean/1/2/1_2_0_0.wav",
        "dev-clean/1/2/1_2_0_0.normalized.txt",
        "dev-clean/1/2/.hidden",
        "notes/x.txt",
    ):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(name)
    return tmp_path / "tree"


def test_archives_have_the_same_bytes_whenever_they_are_packed(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "copy", copy_function=shutil.copyfile)
    assert pack_corpus(tree, tmp_path / "one") == pack_corpus(tmp_path / "copy", tmp_path / "two") == ["dev-clean"]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sorted(contents(tmp_path / "one")) == ["dev-clean.tar.gz", "md5sum.txt"]


def test_the_archive_has_the_form_of_openslr(tree: Path, tmp_path: Path) -> None:
    pack_corpus(tree, tmp_path / "archives")
    archive = tmp_path / "archives" / "dev-clean.tar.gz"
    unpack(archive, tmp_path / "out", lambda path: path.parts[:2] == ("LibriTTS", "dev-clean"), "dev-clean")
    assert sorted(contents(tmp_path / "out")) == [
        "LibriTTS/dev-clean/1/2/1_2_0_0.normalized.txt",
        "LibriTTS/dev-clean/1/2/1_2_0_0.wav",
    ]
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    assert (tmp_path / "archives" / "md5sum.txt").read_text() == f"{md5}  dev-clean.tar.gz\n"


def test_a_folder_without_subsets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CosyFlowError, match="no LibriTTS tree"):
        pack_corpus(tmp_path, tmp_path / "archives")


def get(url: str, span: str | None = None) -> tuple[int, bytes, str | None]:
    request = urllib.request.Request(url, headers={"Range": span} if span else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, answer.read(), answer.headers["Content-Range"]


def test_the_server_gives_whole_files_and_parts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with serve(tmp_path) as url:
        assert get(f"{url}/file") == (200, b"0123456789", None)
        assert get(f"{url}/file", "bytes=4-") == (206, b"456789", "bytes 4-9/10")
        assert get(f"{url}/file", "bytes=4-5") == (206, b"45", "bytes 4-5/10")
        with pytest.raises(urllib.error.HTTPError, match="416"):
            get(f"{url}/file", "bytes=10-")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"{url}/nothing", "bytes=1-")


def test_a_folder_keeps_its_address_and_two_servers_do_not_clash(tmp_path: Path) -> None:
    with serve(tmp_path) as first, serve(tmp_path) as second:
        assert first != second
    with serve(tmp_path) as again:
        assert again == first


def test_the_sentences_are_one_line_each() -> None:
    for spoken, printed in sentences():
        assert (spoken + printed).isascii()
        assert not set("|\n\t") & set(spoken + printed)
