"""Stage -1, download: one subset's archive, checked and unpacked, or a folder of one's own that is there already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cosyflow import storage
from cosyflow.content import Digests, combine
from cosyflow.corpus.source import folder_digest
from cosyflow.errors import CosyFlowError, Problem
from cosyflow.run import keys
from cosyflow.run.config import default_of
from cosyflow.run.definition import Job, Stage
from cosyflow.run.record import Record
from cosyflow.run.space import too_little_space
from cosyflow.run.speech_settings import IMPORT_SETTINGS, import_settings_of
from cosyflow.run.stages.rejects import IMPORTED, too_many_rejects
from cosyflow.stage import Manifest, StageResult, find_finished

SOURCE = "source"
SPLIT_OFF = ("train", "dev")
"""Subsets that a corpus in one piece is split into."""
ARCHIVE_TO_DATA = 4
"""Bytes of archive, unpacked files and shards for each byte of an archive: 3.4 to 3.8 for LibriTTS."""


@dataclass(frozen=True)
class Settings:
    """Where the speech comes from, and of a folder what is in it."""

    data_url: str
    content: str
    """Digest of names and contents of all files, those included that a wav.scp names elsewhere, and of what the import
    is asked to do that it does not by itself; "" of an archive."""


def is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def settings(record: Record, name: str, digests: Digests) -> Settings:
    url = record.data_url
    if is_web(url):
        return Settings(url, "")
    content = folder_digest(_folder(url, name), digests)
    chosen = _import_settings(record)
    if chosen:
        content = combine({"files": content, "import": hashlib.sha256(repr(chosen).encode()).hexdigest()})
    return Settings(url, content)


def _import_settings(record: Record) -> dict[str, Any]:
    """What was chosen for an import, in addition to what it does by itself."""
    chosen = {name: getattr(record.run, name) for name in IMPORT_SETTINGS}
    return {name: value for name, value in chosen.items() if value != default_of(name)}


def _folder(url: str, name: str) -> str:
    """Where a subset lies: in a folder of its own, or in a corpus that has neither train nor dev, to be split."""
    from cosyflow.corpus.importing.run import is_importable

    has_parts = any(storage.exists(storage.join(url, part)) for part in SPLIT_OFF)
    return url if name in SPLIT_OFF and not has_parts and is_importable(url) else storage.join(url, name)


def work(job: Job) -> StageResult:
    url = job.record.data_url
    if is_web(url):
        from cosyflow.corpus.download import download_subset

        return download_subset(job.name, url, job.output)
    from cosyflow.corpus.importing.run import is_importable

    folder = _folder(url, job.name)
    content = settings(job.record, job.name, Digests(job.record.digests)).content
    if is_importable(folder):
        return _import(job, folder, content)
    files = storage.list_files(folder)
    counts = {"files": len(files), "bytes": sum(file.size for file in files)}
    return StageResult(counts, [], details={SOURCE: folder}, digest=content)


def _import(job: Job, folder: str, content: str) -> StageResult:
    """Kaldi files of a corpus in another layout, below the output."""
    from cosyflow.corpus.importing.run import import_part
    from cosyflow.corpus.importing.target import AUDIO, NAMES
    from cosyflow.corpus.rejects import REJECTS

    is_split = folder == job.record.data_url
    run = job.record.run
    chosen = import_settings_of(run)
    summary, count = import_part(folder, job.output, job.name, is_split, run.max_reject_share, chosen)
    counts = {"utterances": count}
    folders = [each for each in (job.name, AUDIO) if storage.exists(storage.join(job.output, each))]
    details = {SOURCE: storage.join(job.output, job.name), IMPORTED: summary.as_json()}
    digest = combine({"content": content, "part": hashlib.sha256(job.name.encode()).hexdigest()})
    return StageResult(counts, [NAMES, REJECTS], details, digest=digest, folders=folders)


def check(record: Record) -> Iterator[Problem]:
    yield from _unread_import_settings(record)
    if is_web(record.data_url):
        yield from _missing_archives(record)
        return
    for use in ("train", "dev", "test"):
        for subset in getattr(record.subsets, use):
            folder = _folder(record.data_url, subset)
            if not storage.exists(folder):
                there = "" if record.run.data_url else " of the recipe"
                yield Problem(
                    f"{use}_subsets",
                    f"{folder}: no such folder; name subsets that are below data_url{there}, or another data_url",
                )
            elif not storage.has_files(folder):
                yield Problem(f"{use}_subsets", f"{folder}: nothing in it; give a LibriTTS tree or Kaldi files")


def _unread_import_settings(record: Record) -> Iterator[Problem]:
    """Choices for an import, where nothing is imported."""
    from cosyflow.corpus.importing.run import is_importable

    chosen, url = _import_settings(record), record.data_url
    if not chosen:
        return
    folders = [] if is_web(url) else [_folder(url, subset) for subset in record.subsets.every]
    if not any(storage.exists(folder) and is_importable(folder) for folder in folders):
        for name in chosen:
            yield Problem(name, f"is read by an import only, and {url} is taken as it is; leave it out")


def _missing_archives(record: Record) -> Iterator[Problem]:
    """Archives that are still to be fetched and are not at the URL; and a disk that cannot hold them."""
    from cosyflow.corpus.http import content_length

    wanted = [name for name in STAGE.names(record) if not _is_finished(record, name)]
    total = 0
    for subset in wanted:
        try:
            length = content_length(f"{record.data_url.rstrip('/')}/{subset}.tar.gz")
        except CosyFlowError as error:
            yield Problem("data_url", f"{error}; correct the address, or name a folder with the subsets")
            return
        if length is None:
            use = next(use for use in ("train", "dev", "test") if subset in getattr(record.subsets, use))
            yield Problem(
                f"{use}_subsets", f"{record.data_url.rstrip('/')}/{subset}.tar.gz: no such archive; name others"
            )
        total += length or 0
    yield from too_little_space(record, total * ARCHIVE_TO_DATA)


def _is_finished(record: Record, name: str) -> bool:
    found = settings(record, name, Digests())
    key = keys.key_of(STAGE.name, name, STAGE.version, keys.plain(found), [])
    return find_finished(storage.join(STAGE.place(record, name), key)) is not None


def source_folder(downloaded: Manifest) -> str:
    """Where a downloaded subset's speech lies."""
    return str(downloaded.details.get(SOURCE) or storage.join(downloaded.uri, "LibriTTS", downloaded.name))


STAGE = Stage(
    name="download",
    number=-1,
    per="subset",
    makes="speech",
    inputs=(),
    version=1,
    settings=settings,
    work=work,
    check=check,
    accepts=too_many_rejects,
    shared=True,
)
