"""A training of a second an update at most, from and into the object store, and what tests ask about it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.config.options import LaunchOptions
from cosyflow.launch.spec import base_name
from cosyflow.training.arguments import Arguments
from tests.local.token_corpus import RECIPE, make_token_corpus

NODES = 2
UPDATES = 40
LONG = 300
STOP_SECONDS, STOP_BUSY_SECONDS = 30, 60
"""How soon after the stop of its run a training has no pod that runs, on an idle machine and on a busy one."""
IDLE_LOAD = 4
"""What two training pods and a cluster make by themselves on two cores is less."""
SMALL_MODEL = (
    "llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48",
    "train_conf.tokens_per_step=120", "train_conf.save_per_step=20", "train_conf.log_interval=1",
    "train_conf.max_epoch=200",
)  # fmt: skip


def make_arguments(store: str, folder: Path, num_train: int = 24) -> Arguments:
    """Uploads a corpus below `store`; the arguments of a training on it."""
    corpus = make_token_corpus(folder / "corpus", num_train)
    for data_list in (corpus.train_list, corpus.dev_list):
        text = Path(data_list).read_text()
        Path(data_list).write_text(text.replace(str(folder), store))
    storage.upload_tree(folder / "corpus", storage.join(store, "corpus"))
    return Arguments(
        config=str(RECIPE),
        train_data=storage.join(store, "corpus", "train", "data.list"),
        cv_data=storage.join(store, "corpus", "dev", "data.list"),
        tokenizer_path=storage.join(store, "corpus", "qwen2"),
        model_dir=storage.join(store, "model"),
        max_steps=UPDATES,
        num_workers=0,
        overrides=SMALL_MODEL,
    )


def gang(settings_file: str) -> LaunchOptions:
    """A job of NODES pods without devices."""
    return LaunchOptions(launcher="pytorchjob", num_nodes=NODES, gpus_per_node=0, job=settings_file)


def job_name(arguments: Arguments) -> str:
    return base_name(arguments.model, arguments.model_dir)


def timeline(arguments: Arguments) -> list[dict[str, Any]]:
    return read_lines(arguments, "timeline.jsonl")


def read_lines(arguments: Arguments, name: str) -> list[dict[str, Any]]:
    """The entries of a JSONL file in the model's folder."""
    text = storage.read_text(storage.join(arguments.model_dir, name))
    return [json.loads(line) for line in text.splitlines()]


def has_checkpoint(arguments: Arguments) -> bool:
    return any(file.path.endswith(".state.pt") for file in storage.list_files(arguments.model_dir))


def in_the_background(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what}: not within {seconds} s"
        time.sleep(0.5)
