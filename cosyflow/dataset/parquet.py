"""The parquet stage: audio, text, speaker embeddings and speech tokens of a Kaldi folder become shards."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np

from cosyflow import storage
from cosyflow.audio.opener import AudioInfo, audio_file_size, inspect_audio, read_audio_file
from cosyflow.corpus.kaldi import KaldiData, KaldiUtterance, read_kaldi
from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE, REJECTS, RejectTable, read_rejects
from cosyflow.dataset.alignment import Alignment, why_misaligned
from cosyflow.dataset.pitch import F0Measure, F0Method
from cosyflow.dataset.shard import DATA_LIST, F0_COLUMN, ShardNotes, open_shard, read_notes, shard_name, write_shard
from cosyflow.dataset.tables import SPK2EMBEDDING, UTT2EMBEDDING, UTT2SPEECH_TOKEN, read_table
from cosyflow.dataset.token_rate import rate_of
from cosyflow.errors import CosyFlowError, MachineError, PlaceError
from cosyflow.processes import uninterrupted
from cosyflow.progress import Progress, say
from cosyflow.stage import StageResult
from cosyflow.unexpected import UnexpectedError, describe, write_traceback

Measure = Callable[[bytes, str, int], np.ndarray]
UTT_LIST, SPK_LIST = "utt2data.list", "spk2data.list"


@dataclass(frozen=True)
class _Row:
    """What becomes a row of a shard, but for the audio, which is read when the shard is written."""

    utterance: KaldiUtterance
    utt_embedding: np.ndarray | None
    spk_embedding: np.ndarray | None
    speech_token: np.ndarray | None
    reject_speech_token: np.ndarray | None
    pitch_feat: np.ndarray | None = None
    """Measured when the shard is made."""

    def digest(self, audio_bytes: int) -> bytes:
        parts = [self.utterance.utt, self.utterance.wav, self.utterance.text, self.utterance.spk]
        total = hashlib.sha256(json.dumps([*parts, self.utterance.instruct, audio_bytes]).encode())
        for array in (self.utt_embedding, self.spk_embedding, self.speech_token, self.reject_speech_token):
            total.update(b"absent" if array is None else array.tobytes())
        return total.digest()


@dataclass(frozen=True)
class _Tables:
    """What the extraction stages made, None where a column is to be left out, and what they rejected."""

    utt_embedding: dict[str, np.ndarray] | None
    spk_embedding: dict[str, np.ndarray] | None
    speech_token: dict[str, np.ndarray] | None
    reject_speech_token: dict[str, np.ndarray] | None
    known_rejects: dict[str, str]

    @classmethod
    def read(cls, embedding_dir: str | None, token_dir: str | None, reject_token_dir: str | None) -> _Tables:
        def table(directory: str | None, name: str, dtype: type) -> dict[str, np.ndarray] | None:
            return None if directory is None else read_table(storage.join(directory, name), dtype)

        return cls(
            utt_embedding=table(embedding_dir, UTT2EMBEDDING, np.float64),
            spk_embedding=table(embedding_dir, SPK2EMBEDDING, np.float64),
            speech_token=table(token_dir, UTT2SPEECH_TOKEN, np.int64),
            reject_speech_token=table(reject_token_dir, UTT2SPEECH_TOKEN, np.int64),
            known_rejects={
                utt: reason
                for directory in (token_dir, embedding_dir)
                if directory is not None
                for utt, reason in read_rejects(directory).items()
            },
        )

    def columns(self, data: KaldiData) -> list[str]:
        """The columns that not every corpus has and this one does."""
        names = ("utt_embedding", "spk_embedding", "speech_token", "reject_speech_token")
        present = [name for name in names if getattr(self, name) is not None]
        return [*present, "instruct"] if data.has_instruct else present

    def why_incomplete(self, row: _Row) -> str | None:
        """What a row lacks of the columns that are to be there."""
        if self.utt_embedding is not None and row.utt_embedding is None:
            return f"is not in {UTT2EMBEDDING}"
        if self.speech_token is not None and row.speech_token is None:
            return f"has no tokens in {UTT2SPEECH_TOKEN}"
        if self.spk_embedding is not None and row.spk_embedding is None:
            return f"its speaker {row.utterance.spk} is not in {SPK2EMBEDDING}"
        return None


@dataclass(frozen=True)
class _Shard:
    """One shard to be made: rows that follow one another, and the columns that all shards have."""

    number: int
    directory: str
    rows: Sequence[_Row]
    columns: Sequence[str]
    alignment: Alignment | None
    token_frame_rate: int | None
    """Speech tokens a second, which audio must fit; None where it is not known."""
    f0: F0Measure | None

    def uri(self, name: str) -> str:
        return storage.join(self.directory, name)

    @property
    def data(self) -> str:
        return self.uri(shard_name(self.number))

    @property
    def utt_map(self) -> str:
        return self.uri(f"utt2parquet_{self.number:09d}.json")

    @property
    def spk_map(self) -> str:
        return self.uri(f"spk2parquet_{self.number:09d}.json")


def make_parquet(
    kaldi_dir: str,
    embedding_dir: str | None,
    token_dir: str | None,
    output_dir: str,
    num_utts_per_parquet: int = 1000,
    num_processes: int = 1,
    reject_token_dir: str | None = None,
    max_reject_share: float = DEFAULT_MAX_REJECT_SHARE,
    alignment: Alignment | None = None,
    f0: F0Method = "none",
) -> StageResult:
    """Writes `parquet_*.tar`, their `utt2parquet_*.json` and `spk2parquet_*.json`, the three lists and `rejects.tsv`.

    Shards hold consecutive utterances of wav.scp. Called again it goes on where it stopped: a shard that was made from
    the same rows is kept. `data.list` is written last and names only shards that are there.

    Args:
        kaldi_dir: wav.scp, text, utt2spk and perhaps instruct.
        embedding_dir: utt2embedding.pt and spk2embedding.pt; None leaves these columns out.
        token_dir: utt2speech_token.pt; None leaves this column out.
        output_dir: local folder or URI.
        num_utts_per_parquet: utterances of a shard.
        num_processes: shards that are written at the same time.
        reject_token_dir: utt2speech_token.pt of worse speech for the same texts (DPO), null for utterances that are not
            in it; None leaves the column out.
        max_reject_share: more rejected utterances than this share (0 to 1) are an error; those that the extraction
            stages list in their rejects.tsv are left out too, but were counted there.
        alignment: how much audio tokens stand for; utterances with more or less are rejected. None: as nearly all
            utterances have it, 25 or 50 tokens a second; where they have neither it is not checked.
        f0: method by which a column `pitch_feat` is made, of Hz at mel frames; it needs `alignment` and tokens.
    Raises:
        CosyFlowError: an input file is absent or damaged, or too many utterances are rejected.
    """
    if num_utts_per_parquet < 1 or num_processes < 1:
        raise CosyFlowError("num_utts_per_parquet and num_processes must be at least 1")
    measure = _f0_measure(f0, alignment, token_dir)
    data = read_kaldi(kaldi_dir)
    tables = _Tables.read(embedding_dir, token_dir, reject_token_dir)
    rejects = _Rejects(len(data.utterances), max_reject_share)
    rows = list(_join_tables(data, tables, rejects))

    directory = output_dir if storage.is_remote(output_dir) else str(Path(output_dir).absolute())
    columns = [*tables.columns(data), *([F0_COLUMN] if measure else [])]
    rate = alignment.token_frame_rate if alignment else _rate_of(rows)
    starts = range(0, len(rows), num_utts_per_parquet)
    shards = [
        _Shard(number, directory, rows[start : start + num_utts_per_parquet], columns, alignment, rate, measure)
        for number, start in enumerate(starts)
    ]
    notes = _make_shards(shards, rejects, num_processes)
    made = [(shard, note) for shard, note in zip(shards, notes, strict=True) if note.num_samples]
    if not made:
        utt, reason = next(iter(rejects.all))
        raise CosyFlowError(f"{kaldi_dir}: no utterance can be used, the first is {utt}: {reason}")
    files = _write_lists(directory, [shard for shard, _ in made], rejects.all)
    outputs = sum(len(note.num_samples) for _, note in made)
    return StageResult(
        counts={"inputs": len(data.utterances), "outputs": outputs, "rejects": len(rejects.all), "shards": len(made)},
        files=files,
        details=_describe([note for _, note in made]),
        digest=hashlib.sha256("".join(note.digest for _, note in made).encode()).hexdigest(),
    )


def _f0_measure(method: F0Method, alignment: Alignment | None, token_dir: str | None) -> F0Measure | None:
    if method == "none":
        return None
    if alignment is None or token_dir is None:
        raise CosyFlowError(f"--f0 {method}: needs --config and the speech tokens, which give the number of mel frames")
    return F0Measure(method, alignment)


@contextmanager
def _in_processes(measure: F0Measure | None, num_processes: int) -> Iterator[Measure | None]:
    """f0 by several processes: neither of its methods leaves the interpreter free for other threads."""
    if measure is None or num_processes == 1:
        yield measure
        return
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:

        def measured(audio: bytes, utterance: str, tokens: int) -> np.ndarray:
            with uninterrupted():  # it may start processes
                future = pool.submit(measure, audio, utterance, tokens)
            try:
                return future.result()
            except BrokenProcessPool:
                raise MachineError(
                    f"utterance {utterance}: a worker process was killed; did the machine have too little memory? the"
                    " same command goes on, also with fewer --num_processes"
                ) from None

        yield measured


def _join_tables(data: KaldiData, tables: _Tables, rejects: _Rejects) -> Iterator[_Row]:
    """Gives each utterance what was extracted from it; an utterance without it is rejected."""
    lacking = {}
    for utterance in data.utterances:
        row = _Row(
            utterance,
            _look_up(tables.utt_embedding, utterance.utt),
            _look_up(tables.spk_embedding, utterance.spk),
            _look_up(tables.speech_token, utterance.utt),
            _look_up(tables.reject_speech_token, utterance.utt),
        )
        reason = tables.why_incomplete(row)
        if reason is None:
            yield row
        elif utterance.utt in tables.known_rejects:
            rejects.take_over(utterance.utt, tables.known_rejects[utterance.utt])
        else:
            lacking[utterance.utt] = reason
    rejects.add(lacking)


def _look_up(table: dict[str, np.ndarray] | None, name: str) -> np.ndarray | None:
    """The entry of a name; an empty one, with which the official tools mark a failure, counts as none."""
    entry = None if table is None else table.get(name)
    return entry if entry is not None and len(entry) else None


class _Rejects:
    """What cannot be used: what the extraction stages rejected and tolerated, and what is found to be lacking now.

    Too much of the latter ends the stage before more shards are written.
    """

    def __init__(self, total: int, max_reject_share: float) -> None:
        self.all = RejectTable()
        self._found_now = RejectTable()
        self._limits = total, max_reject_share
        self._lock = Lock()

    def take_over(self, utt: str, reason: str) -> None:
        """Counts a reject of an earlier stage."""
        self.all.add(utt, reason)

    def add(self, reasons: dict[str, str]) -> None:
        """Counts new rejects, by any thread. Raises CosyFlowError when there are too many."""
        with self._lock:
            for utt, reason in reasons.items():
                self.all.add(utt, reason)
                self._found_now.add(utt, reason)
            self._found_now.check(*self._limits)


def _make_shards(shards: Sequence[_Shard], rejects: _Rejects, num_processes: int) -> list[ShardNotes]:
    """Makes the shards, several at a time; the first error ends the stage.

    Threads are enough: reading, compressing and writing do not hold the interpreter.
    """
    notes = []
    f0 = shards[0].f0 if shards else None
    with (
        _in_processes(f0, num_processes) as measure,
        ThreadPoolExecutor(num_processes) as pool,
        Progress("parquet", sum(len(shard.rows) for shard in shards)) as progress,
    ):
        results = [pool.submit(_make_shard, shard, rejects, measure) for shard in shards]
        try:
            for shard, result in zip(shards, results, strict=True):
                notes.append(result.result())
                progress.update(len(shard.rows))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return notes


def _make_shard(shard: _Shard, rejects: _Rejects, measure: Measure | None) -> ShardNotes:
    """Writes a shard and its two maps, unless they are there already."""
    notes = _earlier_notes(shard)
    if notes is not None:
        return notes
    rows, audio, infos, sizes = [], [], [], []
    reasons = {}
    for row in shard.rows:
        try:
            content, size = read_audio_file(row.utterance.wav)
            info = inspect_audio(content, row.utterance.wav)
            _check_tokens(shard.token_frame_rate, row, info)
            pitch = None if measure is None else measure(content, row.utterance.utt, _num_tokens(row))
        except (PlaceError, MachineError):  # no fault of the utterance
            raise
        except CosyFlowError as error:
            reasons[row.utterance.utt] = str(error)
        except Exception as error:
            log = write_traceback(error)
            raise UnexpectedError(
                f"utterance {row.utterance.utt} ({row.utterance.wav}): {describe(error)}; its traceback is in {log}"
            ) from error
        else:
            rows.append(replace(row, pitch_feat=pitch))
            audio.append(content)
            infos.append(info)
            sizes.append(size)
    rejects.add(reasons)
    notes = _notes(shard, rows, sizes, infos)
    if rows:
        write_shard(shard.data, _values(shard, rows, audio), notes)
        _write_map(shard.utt_map, {row.utterance.utt: shard.data for row in rows})
        _write_map(shard.spk_map, {row.utterance.spk: shard.data for row in rows})
    return notes


def _num_tokens(row: _Row) -> int:
    return 0 if row.speech_token is None else len(row.speech_token)


def _rate_of(rows: Sequence[_Row]) -> int | None:
    """Speech tokens a second, where no recipe says it."""
    if all(row.speech_token is None for row in rows):
        return None
    rate = rate_of([_num_tokens(row) for row in rows], lambda place: inspect_audio(rows[place].utterance.wav).seconds)
    if rate is None:
        say("parquet", "speech tokens are not compared with the audio: few utterances have 25 or 50 a second")
    return rate


def _check_tokens(token_frame_rate: int | None, row: _Row, info: AudioInfo) -> None:
    """Raises CosyFlowError when tokens and audio of an utterance do not belong together."""
    if token_frame_rate is not None and row.speech_token is not None:
        problem = why_misaligned(_num_tokens(row), info.seconds, token_frame_rate)
        if problem:
            raise CosyFlowError(problem)


def _notes(shard: _Shard, rows: Sequence[_Row], sizes: Sequence[int], infos: Sequence[AudioInfo]) -> ShardNotes:
    has_tokens = "speech_token" in shard.columns
    return ShardNotes(
        digest=_digest(shard, rows, sizes),
        num_samples=[info.num_samples for info in infos],
        sample_rate=[info.sample_rate for info in infos],
        speech_tokens=[len(row.speech_token) for row in rows if row.speech_token is not None] if has_tokens else None,
        voiced_frames=[int(np.count_nonzero(row.pitch_feat)) for row in rows if row.pitch_feat is not None]
        if shard.f0
        else None,
    )


def _values(shard: _Shard, rows: Sequence[_Row], audio: Sequence[bytes]) -> dict[str, list[object]]:
    """The shard's columns."""
    values: dict[str, list[object]] = {
        "utt": [row.utterance.utt for row in rows],
        "audio_data": list(audio),
        "wav": [row.utterance.wav for row in rows],
        "text": [" ".join(row.utterance.text.split()) for row in rows],
        "spk": [row.utterance.spk for row in rows],
    }
    for name in shard.columns:
        values[name] = [getattr(row.utterance if name == "instruct" else row, name) for row in rows]
    return values


def _earlier_notes(shard: _Shard) -> ShardNotes | None:
    """The notes of a shard that an earlier run made whole and from the same rows and audio files."""
    if not all(storage.exists(uri) for uri in (shard.data, shard.utt_map, shard.spk_map)):
        return None
    try:
        with open_shard(shard.data) as file:
            notes = read_notes(shard.data, file)
        sizes = [audio_file_size(row.utterance.wav) for row in shard.rows]
    except PlaceError:
        raise
    except CosyFlowError:
        return None
    unchanged = notes is not None and notes.digest == _digest(shard, shard.rows, sizes)
    return notes if unchanged else None


def _digest(shard: _Shard, rows: Sequence[_Row], audio_bytes: Sequence[int]) -> str:
    total = hashlib.sha256(json.dumps(shard.columns).encode())
    alignment, f0 = shard.alignment, shard.f0
    fits = alignment.identity if alignment else shard.token_frame_rate
    total.update(repr((fits, f0 and f0.method)).encode())
    for row, size in zip(rows, audio_bytes, strict=True):
        total.update(row.digest(size))
    return total.hexdigest()


def _write_map(uri: str, shards: dict[str, str]) -> None:
    storage.write_text(uri, json.dumps(shards, indent=2, ensure_ascii=False))


def _write_lists(directory: str, shards: Sequence[_Shard], rejects: RejectTable) -> list[str]:
    """Writes rejects.tsv and the lists, `data.list` last; returns the names of all files of the stage."""
    rejects.write(directory)
    for name, uris in (
        (UTT_LIST, [shard.utt_map for shard in shards]),
        (SPK_LIST, [shard.spk_map for shard in shards]),
        (DATA_LIST, [shard.data for shard in shards]),
    ):
        storage.write_text(storage.join(directory, name), "".join(f"{uri}\n" for uri in uris))
    made = [storage.name(uri) for shard in shards for uri in (shard.data, shard.utt_map, shard.spk_map)]
    return [DATA_LIST, UTT_LIST, SPK_LIST, REJECTS, *made]


def _describe(notes: Sequence[ShardNotes]) -> dict[str, float]:
    """Hours of audio and number of speech tokens, for the run's summary."""
    seconds = sum(
        samples / rate for note in notes for samples, rate in zip(note.num_samples, note.sample_rate, strict=True)
    )
    return {
        "hours": round(seconds / 3600, 4),
        "speech_tokens": sum(sum(note.speech_tokens or []) for note in notes),
    }
