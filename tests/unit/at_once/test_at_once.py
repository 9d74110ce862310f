"""The same work begun by several processes at random times ends as if one had done it: nothing lost, nothing twice."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cosyflow import storage
from cosyflow.standins.corpus import serve
from tests.local.token_corpus import RECIPE, TokenCorpus, make_token_corpus
from tests.unit.at_once.commands import Command, run_at_once
from tests.unit.run.world import make_subset

pytestmark = pytest.mark.medium

UTTERANCES = 150
SMALL_MODEL = (
    "llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48",
    "train_conf.tokens_per_step=120", "train_conf.save_per_step=3", "train_conf.max_epoch=2",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What is worked on, and where the logs go."""

    speech: str
    archives: str
    tokens: TokenCorpus
    logs: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("at-once")
    speech = make_subset(root / "speech" / "dev-clean", tuple(f"Sentence {n}." for n in range(UTTERANCES)))
    archives, logs = root / "archives", root / "logs"
    archives.mkdir()
    logs.mkdir()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        archive.add(speech, "LibriTTS/dev-clean")
    (archives / "dev-clean.tar.gz").write_bytes(stream.getvalue())
    md5 = hashlib.md5(stream.getvalue(), usedforsecurity=False).hexdigest()
    (archives / "md5sum.txt").write_text(f"{md5}  dev-clean.tar.gz\n")
    with serve(archives) as url:
        yield Place(str(speech), url, make_token_corpus(root / "tokens", num_train=8, num_dev=2), logs)


def download(place: Place, folder: str) -> list[str]:
    return ["download", "--part", "dev-clean", "--data_url", place.archives, "--output_dir", folder]


def prepare(place: Place, folder: str) -> list[str]:
    return ["prepare", "--src_dir", place.speech, "--des_dir", folder]


def train(place: Place, folder: str) -> list[str]:
    tokens = place.tokens
    lists = ["--train_data", tokens.train_list, "--cv_data", tokens.dev_list, "--tokenizer_path", tokens.qwen2]
    settings = [word for setting in SMALL_MODEL for word in ("--set", setting)]
    return ["--config", str(RECIPE), *lists, "--model_dir", folder, "--num_workers", "0", *settings]


Words = Callable[[Place, str], list[str]]


def begin(words: Words, place: Place, folder: str, delays: list[float]) -> list[str]:
    """Runs the same command several times. Returns what each printed; all must end well."""
    logs = [str(place.logs / f"{number}.log") for number in range(len(delays))]
    same = words(place, folder)
    commands = [Command(same, delay, log, words is train) for delay, log in zip(delays, logs, strict=True)]
    statuses = run_at_once(commands)
    told = [Path(log).read_text() for log in logs]
    assert statuses == [0] * len(delays), told
    return told


def contents(folder: str) -> dict[str, object]:
    """What is in a folder, by name: digests of files, but of checkpoints the numbers, and of metrics the updates."""
    found: dict[str, object] = {}
    for file in storage.list_files(folder):
        uri = storage.join(folder, file.path)
        if file.path.endswith(".pt"):
            with storage.open_read(uri) as stream:
                loaded = torch.load(stream, weights_only=True)
            found[file.path] = re.sub(r"'seconds': [\d.e-]+", "", repr(loaded))
        elif file.path == "metrics.jsonl":
            entries = [json.loads(line) for line in storage.read_text(uri).splitlines()]
            found[file.path] = [entry["update"] for entry in entries if "train/loss" in entry]
        elif file.path in ("result.json",) or file.path.endswith(".yaml"):
            found[file.path] = ""  # they tell times
        else:
            found[file.path] = storage.digest(uri)
    return found


@pytest.fixture(scope="module")
def alone(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Words], dict[str, object]]:
    """What the command makes when nobody disturbs it."""
    known: dict[Words, dict[str, object]] = {}

    def _alone(words: Words) -> dict[str, object]:
        if words not in known:
            folder = str(tmp_path_factory.mktemp("alone") / words.__name__)
            begin(words, place, folder, [0.0])
            known[words] = contents(folder)
        return known[words]

    return _alone


ROUNDS = [
    *((download, 2, 7), (download, 8, 1)),
    *((prepare, 2, 7), (prepare, 8, 1)),
    *((train, 2, 3), (train, 8, 1)),
]


@pytest.mark.parametrize(
    ("words", "processes", "seed"),
    [
        pytest.param(
            words,
            processes,
            seed,
            id=f"{words.__name__}-{processes}-{seed}",
            marks=[pytest.mark.slow] if processes == 8 or words is train else [],
        )
        for words, processes, rounds in ROUNDS
        for seed in range(rounds)
    ],
)
def test_equal_work_at_the_same_time(
    words: Words,
    processes: int,
    seed: int,
    place: Place,
    alone: Callable[[Words], dict[str, object]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    in_a_store = seed % 2 == 1 or (processes == 8 and words is prepare)
    folder = request.getfixturevalue("s3_folder") if in_a_store else str(tmp_path / "work")
    chance = random.Random(f"{words.__name__} {processes} {seed}")
    delays = [0.0, *(chance.uniform(0.0, 1.5) for _ in range(processes - 1))]
    told = begin(words, place, folder, delays)
    expected = alone(words)
    found = contents(folder)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} == set()
    if not in_a_store:
        assert [str(path) for path in tmp_path.rglob("*") if path.name.endswith(".part")] == []
    if words is train:
        assert sum("goes on from" not in lines for lines in told) == 1, "one trains, the others find it trained"
