"""A subset of LibriTTS as it is unpacked: SPEAKER/CHAPTER/UTTERANCE.wav with UTTERANCE.normalized.txt beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cosyflow import storage
from cosyflow.errors import CosyFlowError

WAV, TRANSCRIPT = ".wav", ".normalized.txt"
DEPTH = 3  # parts of a path within a subset
READ_THREADS = 16  # a corpus has hundreds of thousands of small files, often behind a network


@dataclass(frozen=True)
class LibriTTSFile:
    """One wav of the tree; `transcript` is None when there is no such file."""

    wav: str
    transcript: str | None

    @property
    def utt(self) -> str:
        """The file's name without `.wav`."""
        return storage.name(self.wav).removesuffix(WAV)

    @property
    def spk(self) -> str:
        """The part of the utterance's name before the first underscore."""
        return self.utt.partition("_")[0]


def list_libritts(directory: str) -> list[LibriTTSFile]:
    """The wavs of a subset's tree sorted by utterance, with absolute paths (or URIs).

    Raises:
        CosyFlowError: there are none, or two have the same name.
    """
    root = directory if storage.is_remote(directory) else str(Path(directory).absolute())
    paths = {file.path for file in storage.list_files(root)}
    found: dict[str, LibriTTSFile] = {}
    for path in sorted(paths):
        if not _is_wav(path):
            continue
        transcript = path.removesuffix(WAV) + TRANSCRIPT
        file = LibriTTSFile(storage.join(root, path), storage.join(root, transcript) if transcript in paths else None)
        if file.utt in found:
            raise CosyFlowError(
                f"utterance {file.utt} is there twice: {found[file.utt].wav} and {file.wav}; remove one"
            )
        found[file.utt] = file
    if not found:
        raise CosyFlowError(f"{root}: neither SPEAKER/CHAPTER/UTTERANCE.wav nor Kaldi files (wav.scp, text, utt2spk)")
    return [found[utt] for utt in sorted(found)]


def _is_wav(path: str) -> bool:
    """Files that begin with a dot, as some systems leave them behind, are no speech."""
    parts = PurePosixPath(path).parts
    return len(parts) == DEPTH and path.endswith(WAV) and not parts[-1].startswith(".")


def read_transcript(file: LibriTTSFile) -> str:
    """The first line of the transcript without surrounding blanks; raises CosyFlowError when there is nothing in it."""
    if file.transcript is None:
        raise CosyFlowError(f"no transcript: {file.wav.removesuffix(WAV) + TRANSCRIPT} does not exist")
    first_line = re.split(r"[\r\n]", storage.read_text(file.transcript).removeprefix("\ufeff"), maxsplit=1)[0].strip()
    if not first_line:
        raise CosyFlowError(f"empty transcript: {file.transcript}")
    return first_line
