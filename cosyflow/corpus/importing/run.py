"""Importing a corpus: its layout is recognised, each clip is checked and named, and Kaldi folders are written."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from cosyflow import storage
from cosyflow.audio.fitness import Limits
from cosyflow.audio.opener import read_audio_file
from cosyflow.corpus.check import check_audio
from cosyflow.corpus.importing import ffmpeg
from cosyflow.corpus.importing.layouts import Layout, UnknownLayoutError, layout_of
from cosyflow.corpus.importing.naming import Names, folder_speakers, speakers_of
from cosyflow.corpus.importing.result import Summary, Taken
from cosyflow.corpus.importing.source import Clip, Columns, Source
from cosyflow.corpus.importing.split import DEFAULT_DEV_SHARE
from cosyflow.corpus.importing.target import DEV, Target
from cosyflow.corpus.kaldi import is_writable
from cosyflow.corpus.libritts import READ_THREADS
from cosyflow.corpus.listing import list_all
from cosyflow.errors import AudioError, CosyFlowError, PlaceError, Problem, RefusalError
from cosyflow.progress import Progress, say

IN_FLIGHT = 4 * READ_THREADS


@dataclass(frozen=True)
class ImportSettings:
    """How a corpus is to be imported."""

    columns: Columns = field(default_factory=Columns)
    dev_share: float = DEFAULT_DEV_SHARE
    seed: int = 0
    dry_run: bool = False
    limits: Limits | None = None


def import_corpus(src: str, dst: str, settings: ImportSettings | None = None) -> Summary:
    """Makes the Kaldi folders `train` and `dev` of a corpus in any layout of `cosyflow.corpus.importing.layouts`.

    Audio in files is named where it lies; what lies in tables and archives, or has to be decoded, is written below
    `<dst>/audio`. `names.tsv` has the name of each utterance in the source, `rejects.tsv` what cannot be used.
    Progress goes to standard error.

    Args:
        src: folder, or one table or archive; a path or s3:// URI.
        dst: folder for the result; nothing is written there on a dry run.

    Raises:
        RefusalError: a setting cannot work, or `dst` holds something else.
        CosyFlowError: no layout is recognised, the source is damaged, or nothing in it can be used.
    """
    settings = settings or ImportSettings()
    if not 0 <= settings.dev_share < 1:
        raise RefusalError([Problem("--dev-share", f"{settings.dev_share} is no share; give 0 to less than 1")])
    target = Target(dst)
    target.refuse_others()
    source = _source(src, target, settings.columns)
    layout = layout_of(source)
    if not settings.dry_run:
        target.begin()
    summary = _read(source, layout, target, settings)
    if not settings.dry_run:
        target.write(summary, summary.dev(settings.dev_share, settings.seed))
    return summary


def import_part(
    src: str, output: str, part: str, is_split: bool, max_reject_share: float, settings: ImportSettings
) -> tuple[Summary, int]:
    """Writes a Kaldi folder `part` of a corpus below a folder that is the caller's alone.

    Args:
        is_split: it is the part `train` or `dev` of the corpus, else the whole.
        max_reject_share: above this share of rejects, 0 to 1, of the whole corpus nothing is written.

    Returns:
        what came of the whole corpus, and the number of utterances in the part.

    Raises:
        CosyFlowError: as `import_corpus`; or too many utterances cannot be used.
    """
    target = Target(output)
    source = _source(src, target, settings.columns)
    summary = _read(source, layout_of(source), target, settings)
    summary.rejects.check(len(summary.taken) + len(summary.rejects), max_reject_share)
    utterances = summary.taken
    if is_split:
        dev = summary.dev(settings.dev_share, settings.seed)
        utterances = [each for each in utterances if (each.utt in dev) == (part == DEV)]
    target.write_part(part, utterances, summary.rejects)
    return summary, len(utterances)


def is_importable(folder: str) -> bool:
    """Whether a folder holds a corpus in a layout that only an import reads."""
    try:
        layout = layout_of(Source(folder, list_all(folder)))
    except UnknownLayoutError:
        return False
    return not layout.is_prepared


def _read(source: Source, layout: Layout, target: Target, settings: ImportSettings) -> Summary:
    say("import", f"{source.root}: {layout.name}", sys.stderr)
    summary = Summary()
    taken: list[_Checked] = []
    with Progress("import", None, stream=sys.stderr) as progress:
        for checked in _checked(layout.read(source), target, settings):
            if checked.problem:
                summary.reject(checked.clip.name, checked.problem)
            else:
                taken.append(checked)
            progress.update()
    summary.ignored = +source.ignored
    summary.taken = _named(taken, storage.name(source.root))
    if not summary.taken:
        first = next(iter(summary.rejects), ("", "there is no audio with a text"))
        raise CosyFlowError(f"{source.root}: nothing can be used, the first is {first[0]}: {first[1]}")
    return summary


def _source(src: str, target: Target, columns: Columns) -> Source:
    if not storage.exists(src):
        raise RefusalError([Problem("SRC", f"{src} does not exist; name a folder, a table or an archive")])
    place = src if storage.is_remote(src) else str(Path(src.removeprefix("file://")).absolute())
    root, chosen = (place, "") if storage.is_folder(place) else (storage.parent(place), storage.name(place))
    target.refuse_if_within(root)
    inner = target.path_below(root)
    files = [each for each in list_all(root) if not inner or not f"{each.path}/".startswith(f"{inner}/")]
    return Source(root, files, columns, chosen)


@dataclass(frozen=True)
class _Checked:
    """A clip with its name and where its audio will be, or why it cannot be used."""

    clip: Clip
    utt: str = ""
    wav: str = ""
    seconds: float = 0.0
    problem: str = ""


def _checked(clips: Iterator[Clip], target: Target, settings: ImportSettings) -> Iterator[_Checked]:
    """Checks clips, several at a time, in their order."""
    names = Names()
    waiting: deque[Future[_Checked]] = deque()
    with ThreadPoolExecutor(READ_THREADS) as threads:
        try:
            for clip in clips:
                waiting.append(threads.submit(_check, clip, names.utterance(clip.name), target, settings))
                if len(waiting) >= IN_FLIGHT:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _check(clip: Clip, utt: str, target: Target, settings: ImportSettings) -> _Checked:
    problem = clip.problem or ("" if clip.text else "empty transcript")
    if problem:
        return _Checked(replace(clip, audio=""), problem=problem)
    name = clip.audio if isinstance(clip.audio, str) else f"{clip.name}{clip.suffix}"
    audio, suffix = clip.audio, clip.suffix or PurePosixPath(name).suffix.lower()
    try:
        if suffix in ffmpeg.SUFFIXES:
            audio, suffix = ffmpeg.decode(audio, name), ".wav"
        seconds = check_audio(audio, name, settings.limits)
        if isinstance(audio, str) and not is_writable(audio):
            audio, _ = read_audio_file(audio)
        if isinstance(audio, str):
            wav = audio
        else:
            wav = target.audio(f"{utt}{suffix}")
            if not settings.dry_run:
                storage.write_bytes(wav, audio)
    except PlaceError:  # no fault of the utterance
        raise
    except AudioError as error:
        return _Checked(replace(clip, audio=""), problem=str(error).removeprefix(f"{name}: "))
    return _Checked(replace(clip, audio=""), utt, wav, seconds)


def _named(taken: list[_Checked], corpus: str) -> list[Taken]:
    """The utterances, sorted by name; where the source names no speaker, the folders do."""
    by_folder = folder_speakers([each.clip.name for each in taken], corpus)
    spoken_by = [each.clip.speaker or folder for each, folder in zip(taken, by_folder, strict=True)]
    names = speakers_of(spoken_by)
    return sorted(
        (
            Taken(each.utt, names[spk], each.clip.text, each.wav, each.seconds, each.clip.name, spk, each.clip.instruct)
            for each, spk in zip(taken, spoken_by, strict=True)
        ),
        key=lambda each: each.utt,
    )
