"""Audio files, each with a .txt, .lab or .json of the same name: in the same folder, or in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from cosyflow import storage
from cosyflow.audio.locator import Locator
from cosyflow.corpus.importing import columns
from cosyflow.corpus.importing.files import once
from cosyflow.corpus.importing.source import Clip, Columns, Source, one_line, without_suffix
from cosyflow.errors import CosyFlowError

SUFFIXES = (".txt", ".lab", ".json")
LONGEST_TEXT = 1 << 20


def recognise(source: Source) -> bool:
    return bool(_texts(source))


def read(source: Source) -> Iterator[Clip]:
    texts = _texts(source)
    for path, found in source.audio.items():
        if path not in texts:
            continue
        text, speaker, problem = "", "", found.problem and f"{found.problem}: {source.uri(path)}"
        content = storage.read_bytes(source.uri(texts[path]))
        try:
            text, speaker = parse(content, texts[path], source.columns)
        except CosyFlowError as error:
            problem = problem or str(error)
        audio = str(Locator(source.uri(path)))
        yield Clip(without_suffix(path), text, audio, speaker=speaker, problem=problem)
    source.ignore_rest({*texts})


def parse(content: bytes, name: str, wanted: Columns) -> tuple[str, str]:
    """Text and speaker ("" where there is none) of the content of a .txt, .lab or .json file.

    Raises:
        CosyFlowError: it is not UTF-8, not JSON, or JSON without a text.
    """
    try:
        text = content[:LONGEST_TEXT].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CosyFlowError(f"transcript is not UTF-8: {name}, offset {error.start}; save it as UTF-8") from error
    if not name.lower().endswith(".json"):
        return one_line(text), ""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CosyFlowError(f"transcript is not JSON: {name}: {error}") from error
    if not isinstance(fields, dict):
        raise CosyFlowError(f"transcript is no JSON object: {name}")
    text_column, speaker_column = columns.text_and_speaker(list(fields), wanted)
    speaker = fields.get(speaker_column)
    return one_line(fields.get(text_column)), "" if speaker is None else str(speaker).strip()


def _texts(source: Source) -> dict[str, str]:
    """Path of the text by path of the audio."""
    ordered = sorted(source.with_suffix(*SUFFIXES), key=lambda each: SUFFIXES.index(each.suffix), reverse=True)
    by_stem = {without_suffix(each.path): each.path for each in ordered}
    by_name = once((PurePosixPath(stem).name, path) for stem, path in by_stem.items())
    audio = once((PurePosixPath(without_suffix(path)).name, path) for path in source.audio)
    apart = {path: by_name[name] for name, path in audio.items() if name in by_name}
    same_folder = {path: by_stem[without_suffix(path)] for path in source.audio if without_suffix(path) in by_stem}
    return apart | same_folder
