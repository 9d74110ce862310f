"""The prepare stage: a LibriTTS subset or a Kaldi folder of one's own becomes checked Kaldi files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cosyflow import storage
from cosyflow.audio.fitness import Limits
from cosyflow.corpus.check import check_audio
from cosyflow.corpus.kaldi import WAV_SCP, KaldiData, KaldiSource, KaldiUtterance, why_unwritable, write_kaldi
from cosyflow.corpus.libritts import READ_THREADS, LibriTTSFile, read_libritts, read_transcript
from cosyflow.corpus.own_kaldi import AUDIO, OwnKaldi
from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE, REJECTS, RejectTable
from cosyflow.errors import AudioError, CosyFlowError, PlaceError
from cosyflow.progress import Progress, say
from cosyflow.scratch import scratch_folder
from cosyflow.stage import StageResult

UTT2DUR = "utt2dur"
SECONDS_PER_HOUR = 3600


def prepare(
    src_dir: str,
    output_dir: str,
    instruct: str | None = None,
    max_reject_share: float = DEFAULT_MAX_REJECT_SHARE,
    num_threads: int = READ_THREADS,
    limits: Limits | None = None,
    allow_pipes: bool = False,
) -> StageResult:
    """Writes wav.scp, text, utt2spk, spk2utt, utt2dur (seconds), rejects.tsv and, if wanted, instruct.

    The lines are sorted by utterance and paths are absolute. What cannot be used (no or empty transcript, text that is
    not UTF-8, a name that no line can hold, audio that is missing, empty, truncated, not audio, below 16 kHz or, where
    it is measured, beyond the limits) goes into the table of rejects. What is no utterance is counted by reason.

    Args:
        src_dir: a subset's tree (SPEAKER/CHAPTER/UTTERANCE.wav and .normalized.txt), or a folder with a wav.scp, also
            with segments. There, a relative path is meant from that folder, or else from the working directory.
        instruct: the instruction of every utterance; a Kaldi folder that has instructions keeps its own.
        max_reject_share: above this share of rejects, 0 to 1, nothing is written.
        num_threads: files that are read at the same time.
        limits: what the samples of a recording may be like; None reads headers only.
        allow_pipes: runs the commands of a wav.scp and keeps what they print in the folder `audio` of the output.

    Raises:
        CosyFlowError: there is no such folder or no speech in it, a folder cannot be read, an utterance is there twice,
            the Kaldi files do not agree, or too many utterances are rejected.
    """
    if not storage.exists(src_dir):
        raise CosyFlowError(f"{src_dir} does not exist")
    with scratch_folder() as piped:
        if storage.exists(storage.join(src_dir, WAV_SCP)):
            found = _kaldi_sources(OwnKaldi(src_dir, output_dir, piped if allow_pipes else None))
        else:
            found = _libritts_sources(src_dir)
        rejects = RejectTable()
        utterances, seconds = _checked(found.sources, rejects, limits, num_threads, storage.name(src_dir))
        rejects.check(len(found.sources), max_reject_share)
        folders = [AUDIO] if any(Path(piped).iterdir()) else []
        if folders:
            storage.upload_tree(piped, storage.join(output_dir, AUDIO))
    if instruct:
        utterances = [replace(each, instruct=each.instruct or instruct) for each in utterances]

    data = KaldiData(utterances)
    files = write_kaldi(data, output_dir)
    durations = "".join(f"{utt} {value:.4f}\n" for utt, value in seconds.items())
    storage.write_text(storage.join(output_dir, UTT2DUR), durations)
    rejects.write(output_dir)
    for message in found.messages:
        say(f"prepare {storage.name(src_dir)}", message)
    return StageResult(
        counts={
            "inputs": len(found.sources),
            "outputs": len(utterances),
            "rejects": len(rejects),
            "speakers": len(data.utterances_by_speaker),
            "ignored": sum(found.ignored.values()),
            "seen": len(found.sources) + sum(found.ignored.values()),
        },
        files=[*files, UTT2DUR, REJECTS],
        details={"hours": round(sum(seconds.values()) / SECONDS_PER_HOUR, 4), "ignored": found.ignored},
        folders=folders,
    )


@dataclass(frozen=True)
class _Read:
    """An utterance with its text, and where its audio can be read now."""

    utterance: KaldiUtterance
    audio: str


@dataclass(frozen=True)
class _Source:
    """An utterance that was found; `read` gives it with its text, or raises CosyFlowError."""

    utt: str
    read: Callable[[], _Read]


@dataclass(frozen=True)
class _Found:
    sources: Sequence[_Source]
    ignored: dict[str, int]
    """What else was seen, by reason."""
    disagreement: str = ""

    @property
    def messages(self) -> list[str]:
        counts = ", ".join(f"{count} {reason}" for reason, count in self.ignored.items())
        return [text for text in (self.disagreement, counts and f"ignored: {counts}") if text]


@dataclass(frozen=True)
class _Checked:
    utterance: KaldiUtterance
    seconds: float


def _checked(
    sources: Sequence[_Source], rejects: RejectTable, limits: Limits | None, num_threads: int, name: str
) -> tuple[list[KaldiUtterance], dict[str, float]]:
    """The utterances that can be used, and their seconds by utterance; the others become rejects."""
    utterances: list[KaldiUtterance] = []
    seconds: dict[str, float] = {}
    with ThreadPoolExecutor(num_threads) as threads, Progress(f"prepare {name}", len(sources)) as progress:
        results = threads.map(lambda source: _check(source, limits), sources)
        for source, checked in zip(sources, results, strict=True):
            if isinstance(checked, CosyFlowError):
                rejects.add(source.utt, str(checked))
            else:
                utterances.append(checked.utterance)
                seconds[source.utt] = checked.seconds
            progress.update()
    return utterances, seconds


def _check(source: _Source, limits: Limits | None) -> _Checked | CosyFlowError:
    try:
        read = source.read()
        if problem := why_unwritable(read.utterance):
            return CosyFlowError(f"{read.utterance.wav}: {problem[1]}")
        return _Checked(read.utterance, check_audio(read.audio, read.utterance.wav, limits))
    except PlaceError:  # no fault of the utterance
        raise
    except CosyFlowError as error:
        return error


def _libritts_sources(directory: str) -> _Found:
    def reader(file: LibriTTSFile) -> Callable[[], _Read]:
        def read() -> _Read:
            if file.problem:
                raise AudioError(f"{file.wav}: {file.problem}")
            return _Read(KaldiUtterance(file.utt, file.wav, read_transcript(file), file.spk), file.wav)

        return read

    tree = read_libritts(directory)
    return _Found([_Source(file.utt, reader(file)) for file in tree.files], tree.ignored, tree.disagreement)


def _kaldi_sources(own: OwnKaldi) -> _Found:
    sources = sorted(own.sources, key=lambda source: source.utterance.utt)
    found = [_Source(source.utterance.utt, partial(_read_own, own, source)) for source in sources]
    return _Found(found, own.ignored())


def _read_own(own: OwnKaldi, source: KaldiSource) -> _Read:
    return _Read(*own.read(source))
