"""A small training set in real parquet shards, with a real tokenizer: all that training a language model reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosyflow.dataset.shard import ShardNotes, shard_name, write_shard
from cosyflow.standins.text_models import make_qwen2_folder

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "conf" / "cosyvoice2.tiny.yaml"
WORDS = ("a", "small", "bird", "sang", "over", "the", "old", "stone", "bridge", "at", "dawn", "and", "rain", "fell")
TOKENS_PER_SECOND = 25
SAMPLE_RATE = 24000


@dataclass(frozen=True)
class TokenCorpus:
    train_list: str
    dev_list: str
    qwen2: str


def make_token_corpus(
    directory: Path,
    num_train: int = 24,
    num_dev: int = 6,
    rejected: bool = False,
    tokens_per_second: int = TOKENS_PER_SECOND,
) -> TokenCorpus:
    """Utterances whose speech tokens (all below 600) are runs that belong to their words, so that a model can learn.

    With `rejected` there is worse speech too, in which every run is that of another word; the first one has none.
    """
    rng = np.random.default_rng(0)
    make_qwen2_folder(directory / "qwen2", seed=0)
    return TokenCorpus(
        train_list=_write_set(directory / "train", rng, num_train, 2, rejected, tokens_per_second),
        dev_list=_write_set(directory / "dev", rng, num_dev, 1, rejected, tokens_per_second),
        qwen2=str(directory / "qwen2"),
    )


def _write_set(
    directory: Path,
    rng: np.random.Generator,
    num_utterances: int,
    num_shards: int,
    rejected: bool,
    tokens_per_second: int,
) -> str:
    directory.mkdir(parents=True)
    shards = []
    for number, rows in enumerate(np.array_split(np.arange(num_utterances), num_shards)):
        texts = [rng.choice(len(WORDS), rng.integers(4, 9)).tolist() for _ in rows]
        speech = [_speak(text) for text in texts]
        embedding = rng.normal(size=(len(rows), 192)).tolist()
        columns = {
            "utt": [f"{directory.name}_{row:03d}" for row in rows],
            "audio_data": [b"" for _ in rows],  # a language model's reader never looks at it
            "wav": [f"{row}.wav" for row in rows],
            "text": [" ".join(WORDS[word] for word in text) for text in texts],
            "spk": [f"spk{row % 3}" for row in rows],
            "utt_embedding": embedding,
            "spk_embedding": embedding,
            "speech_token": speech,
        }
        if rejected:
            worse = [_speak([(word + 5) % len(WORDS) for word in text[1:]]) for text in texts]
            columns["reject_speech_token"] = [worse[place] if row else None for place, row in enumerate(rows)]
        samples = [len(tokens) * SAMPLE_RATE // tokens_per_second for tokens in speech]
        notes = ShardNotes("", samples, [SAMPLE_RATE] * len(rows), [len(tokens) for tokens in speech])
        shards.append(str(directory / shard_name(number)))
        write_shard(shards[-1], columns, notes)
    data_list = directory / "data.list"
    data_list.write_text("".join(f"{shard}\n" for shard in shards))
    return str(data_list)


def _speak(text: list[int]) -> list[int]:
    return [37 * word + step // 2 for word in text for step in range(8)]
