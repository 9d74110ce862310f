"""How fast training data is read: only the columns that a language model needs, against whole rows with decoded audio.

Both read the same freshly written shards in the same process, one after the other, so that only their ratio counts:

    python tests/bench/reader.py --utterances 2000
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import soundfile

from cosyflow.audio.opener import open_audio
from cosyflow.dataset.batching import TokenBudget
from cosyflow.dataset.index import build_index
from cosyflow.dataset.loader import build_loader
from cosyflow.dataset.plan import plan_epoch
from cosyflow.dataset.reader import UtteranceReader
from cosyflow.dataset.shard import ShardNotes, shard_name, write_shard

SAMPLE_RATE = 24000
TOKENS_PER_SECOND = 25


class ByteTokenizer:
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]


def write_corpus(folder: Path, num_utterances: int, utterances_per_shard: int) -> Path:
    """Noise of 2 to 12 s, 16 bit, with as many tokens as speech of that length has."""
    rng = np.random.default_rng(0)
    lines = []
    for start in range(0, num_utterances, utterances_per_shard):
        numbers = range(start, min(start + utterances_per_shard, num_utterances))
        seconds = rng.uniform(2, 12, len(numbers))
        tokens = [rng.integers(0, 6561, int(length * TOKENS_PER_SECOND)).tolist() for length in seconds]
        embeddings = list(rng.standard_normal((len(numbers), 192)))
        columns = {
            "utt": [f"utt{number}" for number in numbers],
            "audio_data": [noise(rng, length) for length in seconds],
            "wav": [f"utt{number}.wav" for number in numbers],
            "text": ["some words that somebody says " * int(length / 2) for length in seconds],
            "spk": ["speaker"] * len(numbers),
            "utt_embedding": embeddings,
            "spk_embedding": embeddings,
            "speech_token": tokens,
        }
        samples = [int(length * SAMPLE_RATE) for length in seconds]
        notes = ShardNotes("", samples, [SAMPLE_RATE] * len(numbers), list(map(len, tokens)))
        path = folder / shard_name(len(lines))
        write_shard(str(path), columns, notes)
        lines.append(f"{path}\n")
    listing = folder / "data.list"
    listing.write_text("".join(lines))
    return listing


def noise(rng: np.random.Generator, seconds: float) -> bytes:
    stream = io.BytesIO()
    samples = rng.standard_normal(int(seconds * SAMPLE_RATE)).astype(np.float32) * 0.1
    soundfile.write(stream, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def whole_rows(listing: Path) -> Iterator[int]:
    """Every column of every row as Python objects, and the audio decoded, as a simple pipeline does."""
    for shard in listing.read_text().split():
        for batch in pq.ParquetFile(shard).iter_batches(64):
            for row in batch.to_pylist():
                open_audio(row["audio_data"])
                yield len(row["speech_token"])


def needed_columns(listing: Path, num_workers: int) -> Iterator[int]:
    """Our way: index, plan of an epoch, reader."""
    index = build_index(str(listing), ByteTokenizer())
    plan = plan_epoch(index, 0, 0, TokenBudget(8000, lambda index: index.speech_len + index.text_len))
    for lengths in build_loader(plan.share(), UtteranceReader(index), speech_lengths, num_workers=num_workers):
        yield from lengths


def speech_lengths(utterances: Sequence) -> list[int]:
    return [len(utterance.speech_token) for utterance in utterances]


def measure(label: str, read: Callable[[], Iterator[int]]) -> tuple[float, int]:
    """Utterances a second, and the sum of what was read."""
    start = time.perf_counter()
    lengths = list(read())
    rate = len(lengths) / (time.perf_counter() - start)
    print(f"{label:<44} {rate:>10.0f} utterances/s")
    return rate, sum(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--utterances", type=int, default=2000)
    parser.add_argument("--utterances-per-shard", type=int, default=500)
    parser.add_argument("--num-workers", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        listing = write_corpus(Path(folder), args.utterances, args.utterances_per_shard)
        gigabytes = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e9
        print(f"{args.utterances} utterances, {gigabytes:.2f} GB of shards, in the page cache")
        naive, naive_tokens = measure("whole rows, audio decoded", lambda: whole_rows(listing))
        ours, our_tokens = measure(
            "needed columns (index and plan included)", lambda: needed_columns(listing, args.num_workers)
        )
        assert naive_tokens == our_tokens
        print(f"ratio {ours / naive:.1f}")


if __name__ == "__main__":
    main()
