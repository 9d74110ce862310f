"""The demo: the whole pipeline on this machine, with stand-in models and a small corpus that is fetched by URL."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cosyflow.errors import CosyFlowError
from cosyflow.progress import format_seconds

RECIPES = ("cosyvoice2.tiny", "cosyvoice.tiny", "cosyvoice3.tiny")
KINDS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}


@dataclass(frozen=True)
class Tree:
    """A LibriTTS tree: its folder, and its subsets by what they are for."""

    folder: Path
    train: list[str]
    dev: list[str]
    test: list[str]


def find_subsets(folder: Path) -> Tree:
    """The subsets of a LibriTTS tree, or of the folder LibriTTS in it.

    Raises:
        CosyFlowError: it has no subset to train on, or none to validate on.
    """
    folder = folder.resolve()
    if (folder / "LibriTTS").is_dir():
        folder = folder / "LibriTTS"
    if not folder.is_dir():
        raise CosyFlowError(f"{folder}: no such folder")
    subsets = {kind: sorted(path.name for path in folder.glob(f"{kind}*") if path.is_dir()) for kind in KINDS}
    for kind in ("train", "dev"):
        if not subsets[kind]:
            raise CosyFlowError(f"{folder}: no subset {kind}-* in it; a LibriTTS tree has e.g. {KINDS[kind]}")
    return Tree(folder, **subsets)


def demo(work_dir: Path, corpus: Path | None = None, recipe: str = RECIPES[0], terminal: TextIO = sys.stdout) -> int:
    """Runs the demo.

    Args:
        work_dir: folder for everything: models, corpus, archives, data, the MLflow database and the runs.
        corpus: a LibriTTS tree, which is only read; by default a small one is spoken into `work_dir`.
        recipe: one of RECIPES, which fit the stand-in models.

    Returns:
        0, or 1 when a stage failed.
    """
    from cosyflow.standins.corpus import pack_corpus, serve, speak_corpus
    from cosyflow.standins.models import make_stand_ins
    from pipelines.running import new_run_dir, run

    work_dir = work_dir.resolve()
    terminal.write(f"[demo] everything goes to {work_dir}\n")
    pretrained, archives = work_dir / "pretrained", work_dir / "archives"
    with _step("makes the stand-in models", terminal):
        make_stand_ins(pretrained)
    if corpus is None:
        corpus = work_dir / "corpus"
        with _step("speaks the corpus with eSpeak NG", terminal):
            speak_corpus(corpus)
    tree = find_subsets(corpus)
    with _step(f"packs {', '.join(tree.train + tree.dev + tree.test)}", terminal):
        pack_corpus(tree.folder, archives)
    with serve(archives) as url:
        settings = demo_settings(tree, url, pretrained, work_dir, recipe)
        return run(settings, new_run_dir(work_dir / "runs"), terminal)


def demo_settings(tree: Tree, url: str, pretrained: Path, work_dir: Path, recipe: str = RECIPES[0]) -> dict[str, Any]:
    """The settings of a run for a corpus of minutes on a machine of two cores."""
    return {
        "recipe": recipe,
        "data_root": str(work_dir / "data"),
        "data_url": url,
        "pretrained_dir": str(pretrained),
        "train_subsets": tree.train,
        "dev_subsets": tree.dev,
        "test_subsets": tree.test or ["none"],
        "num_processes": max(1, (os.cpu_count() or 2) // 2),  # KFP runs two subsets at a time
        "num_utts_per_parquet": 16,
        "num_workers": 0,
        "pin_memory": False,
        "average_num": 3,
        "mlflow_uri": f"sqlite:///{work_dir / 'mlflow.db'}",
        "experiment": "cosyflow-demo",
    }


@contextmanager
def _step(what: str, terminal: TextIO) -> Iterator[None]:
    start = time.monotonic()
    terminal.write(f"[demo] {what} ... ")
    terminal.flush()
    yield
    terminal.write(f"{format_seconds(time.monotonic() - start)}\n")
