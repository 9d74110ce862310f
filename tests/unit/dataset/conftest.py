"""Small corpora for the dataset's tests: an index out of thin air, and real shards with real audio headers."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.dataset.shard import ShardNotes, shard_name, write_shard
from cosyflow.dataset.utterances import TokenTable, UtteranceIndex


class ByteTokenizer:
    """One token for each UTF-8 byte."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]


@pytest.fixture(scope="session")
def tokenizer() -> ByteTokenizer:
    return ByteTokenizer()


@pytest.fixture(scope="session")
def make_index() -> Callable[..., UtteranceIndex]:
    """An index of utterances with given speech lengths, `shard_size` of them a shard."""

    def make(speech_len: Sequence[int], shard_size: int = 4) -> UtteranceIndex:
        count = len(speech_len)
        number = np.arange(count, dtype=np.int32)
        return UtteranceIndex(
            shards=tuple(shard_name(shard) for shard in range(-(-count // shard_size))),
            shard=number // shard_size,
            row=number % shard_size,
            utts=np.array([f"utt{place}" for place in range(count)], dtype=object),
            num_samples=np.full(count, 24000, np.int64),
            sample_rate=np.full(count, 24000, np.int32),
            speech_len=np.array(speech_len, np.int32),
            rejected_len=np.full(count, -1, np.int32),
            text=TokenTable.of([[1]] * count),
            instruct=None,
        )

    return make


@pytest.fixture(scope="session")
def wav_bytes() -> Callable[..., bytes]:
    """The bytes of a WAV file of silence."""

    def make(seconds: float, sample_rate: int = 16000) -> bytes:
        stream = io.BytesIO()
        soundfile.write(stream, np.zeros(int(seconds * sample_rate), np.float32), sample_rate, format="WAV")
        return stream.getvalue()

    return make


@pytest.fixture
def make_shards(tmp_path: Path, wav_bytes: Callable[..., bytes]) -> Callable[..., Path]:
    """Writes shards of utterances `utt0`, `utt1`, ... of 1 s, and their `data.list`; returns the list's path.

    The speech of utterance n is n % 7 + 3 tokens [n, n + 1, ...]; of the embeddings number n is 2, the others 0.
    """

    def every_second(number: int) -> list[int] | None:
        return None if number % 2 else [number]

    def make(
        num_shards: int = 3,
        shard_size: int = 4,
        leave_out: Sequence[str] = (),
        notes: bool = True,
        rejected: Callable[[int], list[int] | None] = every_second,
    ) -> Path:
        lines = []
        for shard in range(num_shards):
            numbers = range(shard * shard_size, (shard + 1) * shard_size)
            speech = [[number + step for step in range(number % 7 + 3)] for number in numbers]
            embeddings = [[2.0 * (place == number % 192) for place in range(192)] for number in numbers]
            columns = {
                "utt": [f"utt{number}" for number in numbers],
                "audio_data": [wav_bytes(1)] * shard_size,
                "wav": [f"utt{number}.wav" for number in numbers],
                "text": [f"text {number}" for number in numbers],
                "spk": ["speaker"] * shard_size,
                "utt_embedding": embeddings,
                "spk_embedding": embeddings,
                "speech_token": speech,
                "reject_speech_token": [rejected(number) for number in numbers],
            }
            columns = {name: values for name, values in columns.items() if name not in leave_out}
            facts = ShardNotes("", [16000] * shard_size, [16000] * shard_size, [len(tokens) for tokens in speech])
            path = tmp_path / shard_name(shard)
            write_shard(str(path), columns, facts)
            if not notes:
                _remove_notes(path)
            lines.append(f"{path}\n")
        listing = tmp_path / "data.list"
        listing.write_text("".join(lines))
        return listing

    return make


def _remove_notes(path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)
