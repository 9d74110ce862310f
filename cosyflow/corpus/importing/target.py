"""Where an import goes: the Kaldi folders, the audio that lay in tables and archives, and the tables of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cosyflow import storage
from cosyflow.corpus.importing.result import Summary, Taken
from cosyflow.corpus.kaldi import KaldiData, KaldiUtterance, write_kaldi
from cosyflow.corpus.names import printable
from cosyflow.corpus.rejects import RejectTable
from cosyflow.errors import CosyFlowError, Problem, RefusalError

TRAIN, DEV, AUDIO, NAMES = "train", "dev", "audio", "names.tsv"
HEADER = "utt\tspk\tsource\tsource_spk\n"


class Target:
    """The folder of an import."""

    def __init__(self, dst: str) -> None:
        self.root = dst if storage.is_remote(dst) else str(Path(dst.removeprefix("file://")).absolute())

    def refuse_others(self) -> None:
        """Raises RefusalError where something else than an import lies here."""
        if storage.exists(self._uri(NAMES)):
            return
        if any(not file.path.startswith(".") for file in storage.list_files(self.root)):
            raise RefusalError(
                [Problem("DST", f"{self.root} holds something else than an import; name another folder")]
            )

    def begin(self) -> None:
        """Marks the folder as that of an import, so that an interrupted one can be done again."""
        if not storage.exists(self._uri(NAMES)):
            storage.write_text(self._uri(NAMES), HEADER)

    def audio(self, name: str) -> str:
        return self._uri(AUDIO, name)

    def refuse_if_within(self, source: str) -> None:
        if self.root.rstrip("/") == source.rstrip("/"):
            raise RefusalError([Problem("DST", "is the folder of the source; name another")])

    def path_below(self, source: str) -> str:
        """Where this folder lies within the source; "" when it does not."""
        prefix = source.rstrip("/") + "/"
        return self.root.removeprefix(prefix).strip("/") if self.root.startswith(prefix) else ""

    def write(self, summary: Summary, dev: set[str]) -> None:
        """Writes the Kaldi folders and tables, and removes audio of an earlier import that is no longer named."""
        for folder, part in (
            (DEV, [each for each in summary.taken if each.utt in dev]),
            (TRAIN, [each for each in summary.taken if each.utt not in dev]),
        ):
            if part:
                self._write_kaldi(folder, part)
            else:
                storage.remove(self._uri(folder))
        self._write_tables(summary.taken, summary.rejects)

    def write_part(self, folder: str, utterances: Sequence[Taken], rejects: RejectTable) -> None:
        """Writes one Kaldi folder, and the tables."""
        if not utterances:
            raise CosyFlowError(f"no utterance is left for {folder}; the corpus is too small to be split")
        self._write_kaldi(folder, utterances)
        self._write_tables(utterances, rejects)

    def _write_kaldi(self, folder: str, part: Sequence[Taken]) -> None:
        write_kaldi(KaldiData([_utterance(each) for each in part]), self._uri(folder))

    def _write_tables(self, utterances: Sequence[Taken], rejects: RejectTable) -> None:
        rejects.write(self.root)
        rows = (
            f"{each.utt}\t{each.spk}\t{printable(each.source)}\t{printable(each.source_spk)}\n" for each in utterances
        )
        storage.write_text(self._uri(NAMES), HEADER + "".join(rows))
        self._remove_other_audio({each.wav for each in utterances})

    def _remove_other_audio(self, named: set[str]) -> None:
        for file in storage.list_files(self._uri(AUDIO)):
            uri = self._uri(AUDIO, file.path)
            if uri not in named:
                storage.remove(uri)

    def _uri(self, *parts: str) -> str:
        return storage.join(self.root, *parts)


def _utterance(each: Taken) -> KaldiUtterance:
    return KaldiUtterance(each.utt, each.wav, each.text, each.spk, each.instruct)
