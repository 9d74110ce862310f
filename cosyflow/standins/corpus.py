"""The demo corpus: spoken on the spot by eSpeak NG, and any LibriTTS tree packed as the archives of OpenSLR-60."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from cosyflow.errors import CosyFlowError
from cosyflow.standins import espeak
from cosyflow.standins.sentences import sentences
from cosyflow.standins.server import serve

__all__ = ["SPEAKERS", "Speaker", "pack_corpus", "serve", "speak_corpus"]

SAMPLE_RATE = 24_000
CORPUS = "LibriTTS"
MARK = "SPOKEN.json"
CHECKSUMS = "md5sum.txt"


@dataclass(frozen=True)
class Speaker:
    """A voice of eSpeak NG as a speaker of a subset, who says `utterances` sentences in `chapter`."""

    subset: str
    spk: int
    chapter: int
    utterances: int
    voice: str
    pitch: int
    words_per_minute: int


SPEAKERS = (
    Speaker("train-clean-100", 9001, 100101, 6, "gmw/en-US+m1", 40, 165),
    Speaker("train-clean-100", 9002, 100102, 6, "gmw/en+f2", 55, 160),
    Speaker("train-clean-100", 9003, 100103, 6, "gmw/en-US+f4", 60, 170),
    Speaker("train-clean-100", 9004, 100104, 6, "gmw/en-GB-scotland+m3", 35, 155),
    Speaker("train-clean-360", 9005, 100205, 6, "gmw/en-US+m7", 30, 160),
    Speaker("train-clean-360", 9006, 100206, 6, "gmw/en-GB-x-rp+f1", 50, 165),
    Speaker("train-clean-360", 9007, 100207, 6, "gmw/en-US+f5", 65, 175),
    Speaker("train-clean-360", 9008, 100208, 6, "gmw/en-029+m2", 45, 160),
    Speaker("train-other-500", 9009, 100309, 4, "gmw/en-GB-x-gbclan+m5", 50, 150),
    Speaker("train-other-500", 9010, 100310, 4, "gmw/en-US-nyc+f3", 45, 180),
    Speaker("train-other-500", 9011, 100311, 4, "gmw/en-GB-x-gbcwmd+m4", 55, 170),
    Speaker("train-other-500", 9012, 100312, 4, "gmw/en-US+f2", 40, 155),
    Speaker("dev-clean", 9013, 100413, 4, "gmw/en-US+m3", 50, 160),
    Speaker("dev-clean", 9014, 100414, 4, "gmw/en+f4", 50, 165),
    Speaker("dev-other", 9015, 100515, 3, "gmw/en-GB-scotland+f5", 60, 160),
    Speaker("dev-other", 9016, 100516, 3, "gmw/en-US+m5", 45, 170),
    Speaker("test-clean", 9017, 100617, 4, "gmw/en-GB-x-rp+m7", 40, 160),
    Speaker("test-other", 9018, 100718, 4, "gmw/en-029+f1", 55, 165),
)


def speak_corpus(directory: Path | str, speakers: Sequence[Speaker] = SPEAKERS) -> int:
    """Speaks a corpus in LibriTTS layout: SUBSET/SPEAKER/CHAPTER/UTTERANCE.wav (24 kHz, 16 bits, mono) and its texts.

    The same call gives the same bytes. The folder appears when it is whole; one that an equal call made is kept.

    Returns:
        The number of utterances.

    Raises:
        CosyFlowError: eSpeak NG is not installed or fails, or the folder is there and holds something else.
    """
    target = Path(directory)
    mark = json.dumps([sentences(), [asdict(speaker) for speaker in speakers]], indent=1)
    total = sum(speaker.utterances for speaker in speakers)
    if target.exists():
        if (target / MARK).is_file() and (target / MARK).read_text(encoding="utf-8") == mark:
            return total
        raise CosyFlowError(f"{target} is there and holds another corpus; move it elsewhere, or name another folder")
    if not espeak.is_installed():
        raise CosyFlowError(
            "the demo corpus is spoken by eSpeak NG, which is not installed: run `pip install espeakng-loader` "
            "(or `uv sync --extra demo`), or give a LibriTTS tree of your own"
        )
    if total > len(sentences()):
        raise CosyFlowError(f"{total} utterances are asked for, there are {len(sentences())} sentences to say")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as work:
        corpus = Path(work) / target.name
        _speak_into(corpus, speakers)
        (corpus / MARK).write_text(mark, encoding="utf-8")
        corpus.replace(target)
    return total


def _speak_into(corpus: Path, speakers: Sequence[Speaker]) -> None:
    remaining = iter(sentences())
    said = [(speaker, list(islice(remaining, speaker.utterances))) for speaker in speakers]
    orders = [
        espeak.Order(spoken, speaker.voice, speaker.pitch, speaker.words_per_minute)
        for speaker, pairs in said
        for spoken, _ in pairs
    ]
    try:
        recordings = iter(espeak.speak(orders))
    except espeak.EspeakError as error:
        raise CosyFlowError(str(error)) from error
    for speaker, pairs in said:
        folder = corpus / speaker.subset / str(speaker.spk) / str(speaker.chapter)
        folder.mkdir(parents=True)
        for number, (spoken, printed) in enumerate(pairs):
            name = f"{speaker.spk}_{speaker.chapter}_{number:06d}_000000"
            (folder / f"{name}.normalized.txt").write_text(spoken + "\n", encoding="utf-8")
            (folder / f"{name}.original.txt").write_text(printed + "\n", encoding="utf-8")
            _write_wav(folder / f"{name}.wav", _resample(np.frombuffer(next(recordings), dtype="<i2")))


def _resample(samples: np.ndarray) -> np.ndarray:
    """int16 [samples] from eSpeak NG's rate to SAMPLE_RATE, by extending the spectrum with zeros."""
    length = round(len(samples) * SAMPLE_RATE / espeak.SAMPLE_RATE)
    spectrum = np.fft.rfft(samples.astype(np.float64))
    resampled = np.fft.irfft(spectrum, length) * (length / len(samples))
    return np.clip(np.rint(resampled), -32768, 32767).astype("<i2")


def _write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(samples.tobytes())


def pack_corpus(tree: Path | str, archives_dir: Path | str) -> list[str]:
    """Packs every subset of a LibriTTS tree as `SUBSET.tar.gz` with a `md5sum.txt`, in the form of OpenSLR-60.

    The same files give the same bytes. Subsets are the folders with SPEAKER/CHAPTER/*.wav.

    Returns:
        The names of the subsets.

    Raises:
        CosyFlowError: the tree has no subset.
    """
    source, target = Path(tree), Path(archives_dir)
    subsets = sorted(folder.name for folder in source.glob("*") if folder.is_dir() and any(folder.glob("*/*/*.wav")))
    if not subsets:
        raise CosyFlowError(f"{source}: no LibriTTS tree (SUBSET/SPEAKER/CHAPTER/UTTERANCE.wav)")
    target.mkdir(parents=True, exist_ok=True)
    lines = [f"{_pack(source / subset, target / f'{subset}.tar.gz')}  {subset}.tar.gz\n" for subset in subsets]
    unfinished = target / f".{CHECKSUMS}.part"
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(target / CHECKSUMS)
    return subsets


def _pack(folder: Path, archive: Path) -> str:
    """Writes an archive without times and owners; returns its MD5."""
    unfinished = archive.with_name(f".{archive.name}.part")
    with (
        unfinished.open("wb") as stream,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=stream, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as members,
    ):
        for path in _files(folder):
            member = tarfile.TarInfo(f"{CORPUS}/{folder.name}/{path.relative_to(folder).as_posix()}")
            member.size = path.stat().st_size
            member.mode = 0o644
            with path.open("rb") as content:
                members.addfile(member, content)
    unfinished.replace(archive)
    with archive.open("rb") as packed:
        return hashlib.file_digest(packed, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """Files in an order that does not depend on the file system, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
