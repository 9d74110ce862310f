"""The download stage: one subset's archive is fetched, compared with its checksum and unpacked, all or nothing."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from cosyflow import storage
from cosyflow.corpus.archive import ArchiveError, unpack
from cosyflow.corpus.checksums import agree, published_checksums
from cosyflow.corpus.http import FileDigests, digest_file, fetch
from cosyflow.credentials import withdraw
from cosyflow.errors import CosyFlowError
from cosyflow.progress import say
from cosyflow.scratch import scratch_folder
from cosyflow.stage import StageResult

DEFAULT_DATA_URL = "https://www.openslr.org/resources/60"
CORPUS = "LibriTTS"
UNPACKED = ".unpacked.part"
RECORD = ".cosyflow-download.json"
"""In the folder of a subset that this stage unpacked: from where, with which digests and how much."""


def download_subset(
    subset: str, url: str, output_dir: str, checksum: str | None = None, keep_archive: bool = False
) -> StageResult:
    """Makes `<output_dir>/LibriTTS/<subset>/SPEAKER/CHAPTER/...` from `<url>/<subset>.tar.gz`.

    The archive is unpacked into a temporary folder that is renamed at the end. An interrupted transfer goes on where it
    stopped, an archive that lies in `output_dir` already is used when its checksum agrees, and finished work is not
    done again.

    Args:
        subset: name of the archive without `.tar.gz`, e.g. "dev-clean".
        url: http(s) address of the folder with the archives and their checksums (md5sum.txt, sha256sum.txt), or of the
            archive.
        output_dir: local folder, or s3:// prefix: then the tree is unpacked on this machine and uploaded.
        checksum: MD5 or SHA-256 of the archive in hexadecimal, instead of the published ones.
        keep_archive: leave the archive in `output_dir`.

    Raises:
        CosyFlowError: the subset is not at the URL, the transfer fails for good, the checksum differs, the archive is
            damaged or has a member that leads out of it, or the subset's folder is there and something else made it.
    """
    if not re.fullmatch(r"\w[\w.-]*", subset):
        raise CosyFlowError(f"{subset!r} is not the name of a subset; write e.g. dev-clean")
    if not url.startswith(("http://", "https://")):
        raise CosyFlowError(f"{url}: archives are fetched from an http:// or https:// address")
    if checksum is not None and not re.fullmatch(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{64}", checksum):
        raise CosyFlowError(f"{checksum!r} is no checksum; write an MD5 (32 hexadecimal digits) or a SHA-256 (64)")
    url, checksum = withdraw(url).rstrip("/").removesuffix(f"/{subset}.tar.gz"), checksum and checksum.lower()
    record = _finished_record(output_dir, subset, url, checksum)
    if record is not None:
        say(f"download {subset}", f"{record['files']} files are in {_tree(output_dir, subset)} already")
        _remove_leftovers(output_dir, subset, with_archive=True)
        return _result(subset, record)

    expected = [checksum] if checksum else published_checksums(url, f"{subset}.tar.gz")
    with _work_folder(output_dir, subset) as work:
        archives = work if storage.is_remote(output_dir) else Path(output_dir)
        archive, digests = _checked_archive(subset, url, archives, expected)
        record = _unpack(archive, digests, work, subset, url)
        if keep_archive:
            _keep(archive, storage.join(output_dir, f"{subset}.tar.gz"))
        _publish(work / CORPUS, output_dir, subset, record)
        storage.remove(str(_partial(archives, subset)))
    return _result(subset, record)


def _tree(output_dir: str, subset: str) -> str:
    return storage.join(output_dir, CORPUS, subset)


def _partial(folder: Path, subset: str) -> Path:
    return folder / f".{subset}.tar.gz.part"


def _finished_record(output_dir: str, subset: str, url: str, checksum: str | None) -> dict[str, Any] | None:
    """The record of an earlier download of the same archive whose files are all there."""
    tree = _tree(output_dir, subset)
    if not storage.exists(tree):
        return None
    path = storage.join(tree, RECORD)
    if not storage.exists(path):
        raise CosyFlowError(
            f"{tree} is there and was not made by this command; prepare it as it is, or move it elsewhere"
        )
    record: dict[str, Any] = storage.read_json(path)
    is_same = record["url"] == url and checksum in (None, record["md5"], record["sha256"])
    files = [file for file in storage.list_files(tree) if file.path != RECORD]
    is_whole = (len(files), sum(file.size for file in files)) == (record["files"], record["bytes"])
    return record if is_same and is_whole else None


@contextmanager
def _work_folder(output_dir: str, subset: str) -> Iterator[Path]:
    """A folder on the file system of the outputs, where renaming publishes them; it is gone at the end.

    Its name is new each time: an attempt that stood still while another one took its place does not come into its way.
    """
    if storage.is_remote(output_dir):
        with scratch_folder() as folder:
            yield folder
        return
    output = Path(output_dir)
    is_new = not output.exists()
    storage.make_directory(output_dir)
    _remove_leftovers(output_dir, subset)
    work = output / f".{subset}.{secrets.token_hex(6)}{UNPACKED}"
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if is_new and not any(output.iterdir()):
            output.rmdir()


def _remove_leftovers(output_dir: str, subset: str, with_archive: bool = False) -> None:
    """Removes what killed attempts have left: what they unpacked, and where nothing is missing the archive too."""
    if storage.is_remote(output_dir):
        return
    output = Path(output_dir)
    ours = re.compile(rf"\.{re.escape(subset)}(\.[0-9a-f]{{12}})?{re.escape(UNPACKED)}")
    for work in output.iterdir():
        if ours.fullmatch(work.name):
            storage.remove(str(work))
    if with_archive:
        storage.remove(str(_partial(output, subset)))


def _checked_archive(subset: str, url: str, folder: Path, expected: list[str]) -> tuple[Path, FileDigests]:
    """The archive with digests that agree: the one that lies in `folder`, or a new one under its partial name."""
    there = folder / f"{subset}.tar.gz"
    if there.exists() and agree(digests := digest_file(there), expected):
        return there, digests
    source, part, label = f"{url}/{there.name}", _partial(folder, subset), f"download {subset}"
    digests = fetch(source, part, label)
    if digests.resumed and not agree(digests, expected):  # the beginning may be of an older archive
        storage.remove(str(part))
        digests = fetch(source, part, label)
    if not agree(digests, expected):
        storage.remove(str(part))
        actual = digests.md5 if len(expected[0]) == len(digests.md5) else digests.sha256
        raise CosyFlowError(
            f"{source}: wrong checksum: {digests.size} bytes with {actual} came, {' and '.join(expected)} is expected; "
            "nothing was unpacked, try again later or from a mirror"
        )
    return part, digests


def _unpack(archive: Path, digests: FileDigests, work: Path, subset: str, url: str) -> dict[str, Any]:
    """Unpacks into `work`; returns the record of the subset's files."""

    def is_allowed(path: PurePosixPath) -> bool:
        top, *below = path.parts
        return top == CORPUS and (len(below) == 1 or (len(below) > 1 and below[0] == subset))

    say(f"download {subset}", f"unpacks {digests.size} bytes")
    source = f"{url}/{subset}.tar.gz"
    try:
        unpack(archive, work, is_allowed, source)
        files = storage.list_files(str(work / CORPUS / subset))
        if not files:
            raise ArchiveError(f"{source}: the archive has nothing in {CORPUS}/{subset}")
    except ArchiveError:
        if archive.name.startswith("."):
            storage.remove(str(archive))
        raise
    return {
        "subset": subset,
        "url": url,
        "md5": digests.md5,
        "sha256": digests.sha256,
        "archive_bytes": digests.size,
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "utterances": sum(file.path.endswith(".wav") for file in files),
    }


def _keep(archive: Path, uri: str) -> None:
    if storage.is_remote(uri):
        with archive.open("rb") as source, storage.open_write(uri) as target:
            shutil.copyfileobj(source, target)
    else:
        storage.check_fences(uri)
        archive.replace(uri)


def _publish(unpacked: Path, output_dir: str, subset: str, record: dict[str, Any]) -> None:
    """Moves the corpus' own files and then the subset's folder to their places; the record makes it complete."""
    tree = _tree(output_dir, subset)
    if storage.is_remote(output_dir):
        storage.remove(tree)
        storage.upload_tree(unpacked, storage.join(output_dir, CORPUS))
        storage.write_json(storage.join(tree, RECORD), record)
        return
    storage.write_json(str(unpacked / subset / RECORD), record)
    target = Path(tree)
    storage.check_fences(tree)
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in unpacked.iterdir():
        if file.is_file():
            file.replace(target.parent / file.name)
    if target.exists():
        target.rename(unpacked / f"{subset}.old")
    (unpacked / subset).rename(target)


def _result(subset: str, record: dict[str, Any]) -> StageResult:
    return StageResult(
        counts={name: record[name] for name in ("utterances", "files", "bytes", "archive_bytes")},
        files=[f"{CORPUS}/{subset}/{RECORD}"],
        folders=[f"{CORPUS}/{subset}"],
        details={
            "url": record["url"],
            "archive": f"{record['url']}/{subset}.tar.gz",
            "md5": record["md5"],
            "sha256": record["sha256"],
        },
        digest=record["sha256"],
    )
