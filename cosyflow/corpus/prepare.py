"""The prepare stage: a LibriTTS subset or a Kaldi folder of one's own becomes checked Kaldi files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cosyflow import storage
from cosyflow.audio.opener import inspect_audio
from cosyflow.corpus.kaldi import WAV_SCP, KaldiData, KaldiUtterance, absolute_wav, read_kaldi, write_kaldi
from cosyflow.corpus.libritts import READ_THREADS, LibriTTSFile, list_libritts, read_transcript
from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE, REJECTS, RejectTable
from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.progress import Progress
from cosyflow.stage import StageResult

UTT2DUR = "utt2dur"
MIN_SAMPLE_RATE = 16_000
SECONDS_PER_HOUR = 3600


def prepare(
    src_dir: str,
    output_dir: str,
    instruct: str | None = None,
    max_reject_share: float = DEFAULT_MAX_REJECT_SHARE,
    num_threads: int = READ_THREADS,
) -> StageResult:
    """Writes wav.scp, text, utt2spk, spk2utt, utt2dur (seconds), rejects.tsv and, if wanted, instruct.

    The lines are sorted by utterance and paths are absolute. Transcripts and the headers of the wavs are read; what
    cannot be used (no or empty transcript, text that is not UTF-8, audio that is missing, empty, truncated, not audio
    or below 16 kHz) goes into the table of rejects.

    Args:
        src_dir: a subset's tree (SPEAKER/CHAPTER/UTTERANCE.wav and .normalized.txt), or a folder with a wav.scp. There,
            a relative path is meant from that folder, or else from the working directory.
        instruct: the instruction of every utterance; a Kaldi folder that has instructions keeps its own.
        max_reject_share: above this share of rejects, 0 to 1, nothing is written.
        num_threads: files that are read at the same time.

    Raises:
        CosyFlowError: there is no such folder or no speech in it, an utterance is there twice, the Kaldi files do not
            agree, or too many utterances are rejected.
    """
    if not storage.exists(src_dir):
        raise CosyFlowError(f"{src_dir} does not exist")
    sources = _kaldi_sources(src_dir) if storage.exists(storage.join(src_dir, WAV_SCP)) else _libritts_sources(src_dir)
    rejects = RejectTable()
    utterances: list[KaldiUtterance] = []
    seconds: dict[str, float] = {}
    with (
        ThreadPoolExecutor(num_threads) as threads,
        Progress(f"prepare {storage.name(src_dir)}", len(sources)) as progress,
    ):
        for source, checked in zip(sources, threads.map(_check, sources), strict=True):
            if isinstance(checked, CosyFlowError):
                rejects.add(source.utt, str(checked))
            else:
                utterances.append(checked.utterance)
                seconds[source.utt] = checked.seconds
            progress.update()
    rejects.check(len(sources), max_reject_share)
    if instruct:
        utterances = [replace(each, instruct=each.instruct or instruct) for each in utterances]

    data = KaldiData(utterances)
    files = write_kaldi(data, output_dir)
    durations = "".join(f"{utt} {value:.4f}\n" for utt, value in seconds.items())
    storage.write_text(storage.join(output_dir, UTT2DUR), durations)
    rejects.write(output_dir)
    return StageResult(
        counts={
            "inputs": len(sources),
            "outputs": len(utterances),
            "rejects": len(rejects),
            "speakers": len(data.utterances_by_speaker),
        },
        files=[*files, UTT2DUR, REJECTS],
        details={"hours": round(sum(seconds.values()) / SECONDS_PER_HOUR, 4)},
    )


@dataclass(frozen=True)
class _Source:
    """An utterance that was found; `read` gives it with its text, or raises CosyFlowError."""

    utt: str
    read: Callable[[], KaldiUtterance]


@dataclass(frozen=True)
class _Checked:
    utterance: KaldiUtterance
    seconds: float


def _check(source: _Source) -> _Checked | CosyFlowError:
    try:
        utterance = source.read()
        audio = inspect_audio(utterance.wav)
    except OutageError:  # no fault of the utterance
        raise
    except CosyFlowError as error:
        return error
    if audio.sample_rate < MIN_SAMPLE_RATE:
        return CosyFlowError(f"{utterance.wav}: {audio.sample_rate} Hz, at least {MIN_SAMPLE_RATE} Hz are needed")
    return _Checked(utterance, audio.seconds)


def _libritts_sources(directory: str) -> Sequence[_Source]:
    def reader(file: LibriTTSFile) -> Callable[[], KaldiUtterance]:
        return lambda: KaldiUtterance(file.utt, file.wav, read_transcript(file), file.spk)

    return [_Source(file.utt, reader(file)) for file in list_libritts(directory)]


def _kaldi_sources(directory: str) -> Sequence[_Source]:
    def reader(utterance: KaldiUtterance) -> Callable[[], KaldiUtterance]:
        def read() -> KaldiUtterance:
            if not utterance.text:
                raise CosyFlowError("empty transcript in the file text")
            return replace(utterance, wav=absolute_wav(utterance.wav, directory))

        return read

    utterances = sorted(read_kaldi(directory).utterances, key=lambda utterance: utterance.utt)
    return [_Source(utterance.utt, reader(utterance)) for utterance in utterances]
