"""WebDataset tars, and those of Emilia: members KEY.wav (.flac, .mp3, ...) with KEY.txt or KEY.json."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from cosyflow import storage
from cosyflow.corpus.importing.pairs import LONGEST_TEXT, SUFFIXES, parse
from cosyflow.corpus.importing.source import Clip, Source
from cosyflow.corpus.listing import AUDIO_SUFFIXES, Found
from cosyflow.errors import CosyFlowError
from cosyflow.unexpected import reading

CONTAINERS = (".tar", ".tar.gz", ".tgz")


@dataclass
class _Group:
    """The members of one key."""

    audio: list[tarfile.TarInfo] = field(default_factory=list)
    texts: list[tarfile.TarInfo] = field(default_factory=list)


def recognise(source: Source) -> bool:
    """Archives in a folder with audio files are those that the files were unpacked from."""
    return bool(source.with_suffix(*CONTAINERS)) and (bool(source.chosen) or not source.audio)


def read(source: Source) -> Iterator[Clip]:
    containers = source.with_suffix(*CONTAINERS)
    for each in containers:
        uri = source.uri(each.path)
        with (
            reading(uri, "a tar archive", "fetch it again"),
            storage.open_read(uri) as stream,
            tarfile.open(fileobj=stream) as tar,
        ):
            yield from _clips(source, tar, uri)
    source.ignore_rest(each.path for each in containers)


def _clips(source: Source, tar: tarfile.TarFile, uri: str) -> Iterator[Clip]:
    groups = _groups(source, tar)
    for key, group in sorted(groups.items(), key=lambda pair: _offset(pair[1])):
        if not group.audio:
            source.ignored["transcripts without audio"] += len(group.texts)
            continue
        first = min(group.audio, key=lambda member: AUDIO_SUFFIXES.index(Found(member.name).suffix))
        source.ignored["other formats of the same utterance"] += len(group.audio) - 1
        source.ignored["transcripts and other texts"] += len(group.texts)
        text, speaker, problem = _text(source, tar, group)
        content = _content(tar, first)
        yield Clip(
            key, text, content, Found(first.name).suffix, speaker=speaker, problem=problem and f"{problem} ({uri})"
        )
    source.ignored = +source.ignored


def _offset(group: _Group) -> int:
    return min(member.offset for member in (*group.audio, *group.texts))


def _groups(source: Source, tar: tarfile.TarFile) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for member in tar:
        if member.isdir():
            continue
        member.name = str(PurePosixPath(member.name))  # without the "./" that `tar -C FOLDER .` writes
        found = Found(member.name)
        key = found.stem
        if found.is_hidden or not member.isfile():
            source.ignored["hidden files" if found.is_hidden else "links and devices in archives"] += 1
        elif found.is_audio:
            groups.setdefault(key, _Group()).audio.append(member)
        elif found.suffix in SUFFIXES:
            groups.setdefault(key, _Group()).texts.append(member)
        else:
            source.ignored["other files"] += 1
    return groups


def _text(source: Source, tar: tarfile.TarFile, group: _Group) -> tuple[str, str, str]:
    """Text, speaker and what is wrong: the text of a .txt comes before that of a .json."""
    text, speaker, problem = "", "", ""
    for member in sorted(group.texts, key=lambda member: SUFFIXES.index(Found(member.name).suffix)):
        try:
            found = parse(_content(tar, member, LONGEST_TEXT), member.name, source.columns)
        except CosyFlowError as error:
            problem = problem or str(error)
        else:
            text, speaker = text or found[0], speaker or found[1]
    return text, speaker, "" if text else problem


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int = -1) -> bytes:
    stream = tar.extractfile(member)
    content = b"" if stream is None else stream.read(most)
    if most < 0 and len(content) < member.size:
        raise tarfile.ReadError(f"member {member.name} is cut")
    return content
