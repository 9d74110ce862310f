"""A Kaldi folder of one's own, whose audio is looked up: parts of recordings, and the output of commands."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from cosyflow import storage
from cosyflow.audio.locator import Locator
from cosyflow.audio.opener import inspect_audio
from cosyflow.corpus.kaldi import WAV_SCP, KaldiSource, KaldiUtterance, absolute_wav, read_sources, wavs_of
from cosyflow.corpus.listing import list_all
from cosyflow.corpus.names import UniqueNames, safe_name
from cosyflow.corpus.pipes import COMMAND_ADVICE, is_command, run_command
from cosyflow.errors import CosyFlowError
from cosyflow.places import tidy

AUDIO = "audio"


class OwnKaldi:
    """The utterances of a Kaldi folder.

    Args:
        directory: the folder.
        output_dir: where the prepared files will lie; what commands print will lie in `audio` there.
        piped: local folder for what commands print; None refuses them.

    Raises:
        CosyFlowError: see `cosyflow.corpus.kaldi.read_sources`; or there are commands and they are refused.
    """

    def __init__(self, directory: str, output_dir: str, piped: Path | None) -> None:
        self._directory = directory
        self._output = output_dir if storage.is_remote(output_dir) else str(Path(output_dir).absolute())
        self._piped = piped
        self._read = read_sources(directory)
        self._files = self._files_of_commands()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._seconds: dict[str, float] = {}
        self._failures: dict[str, CosyFlowError] = {}

    def _files_of_commands(self) -> dict[str, str]:
        """File name by recording, of the recordings that commands print."""
        files: dict[str, str] = {}
        unique = UniqueNames()
        for source in self._read.sources:
            name = _recording_of(source)
            if name in files or not is_command(source.utterance.wav):
                continue
            if self._piped is None:
                path, entry = storage.join(self._directory, WAV_SCP), source.utterance.wav
                raise CosyFlowError(f"{path}: {name} is the output of a command, `{entry}`; {COMMAND_ADVICE}")
            files[name] = unique.make(safe_name(name).replace("/", "_"))
        return files

    @property
    def sources(self) -> list[KaldiSource]:
        return list(self._read.sources)

    def ignored(self) -> dict[str, int]:
        """What is no utterance, by reason: recordings without a segment, and audio that wav.scp does not name."""
        counts = {"recordings without a segment": self._read.unused_recordings}
        if storage.is_folder(self._directory):
            named = set(wavs_of(self._directory))
            files = (each.path for each in list_all(self._directory) if each.is_audio)
            root = self._directory if storage.is_remote(self._directory) else str(Path(self._directory).absolute())
            counts["audio that wav.scp does not name"] = sum(storage.join(root, file) not in named for file in files)
        return {reason: count for reason, count in counts.items() if count}

    def read(self, source: KaldiSource) -> tuple[KaldiUtterance, str]:
        """An utterance as it is to be written, and where its audio can be read now.

        Raises:
            CosyFlowError: a file lacks it, it has no text, its recording is not there, or its command is refused or
                fails.
        """
        utterance, segment = source.utterance, source.segment
        if source.problem:
            raise CosyFlowError(source.problem)
        if not utterance.text:
            raise CosyFlowError("empty transcript: its line in the file text")
        if segment is not None and not utterance.wav:
            raise CosyFlowError(f"no recording: {segment.recording}, which segments names, is not in wav.scp")
        try:
            tidy(utterance.wav)
        except ValueError as error:
            raise CosyFlowError(f"{utterance.wav}: no such file: {error}") from error
        audio = self._recording(_recording_of(source), utterance.wav)
        written = self._written(audio)
        if segment is not None:
            seconds = self._length(audio)
            audio, written = (str(segment.within(Locator.parse(each), seconds)) for each in (audio, written))
        return replace(utterance, wav=written), audio

    def _recording(self, name: str, entry: str) -> str:
        """Where a recording can be read now; a command is run once."""
        if self._piped is None or name not in self._files:
            return absolute_wav(entry, self._directory)
        target = self._piped / f"{self._files[name]}.wav"
        with self._locks[name]:
            if name in self._failures:
                raise self._failures[name]
            if not target.exists():
                try:
                    run_command(entry, self._directory, target)
                except CosyFlowError as error:
                    self._failures[name] = error
                    target.unlink(missing_ok=True)
                    raise
        return str(target)

    def _written(self, audio: str) -> str:
        if self._piped is None or Path(audio).parent != self._piped:
            return audio
        return storage.join(self._output, AUDIO, Path(audio).name)

    def _length(self, recording: str) -> float:
        """Seconds of a recording, looked up once."""
        with self._locks[recording]:
            if recording not in self._seconds:
                self._seconds[recording] = inspect_audio(recording).seconds
            return self._seconds[recording]


def _recording_of(source: KaldiSource) -> str:
    return source.utterance.utt if source.segment is None else source.segment.recording
