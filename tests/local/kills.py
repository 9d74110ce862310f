"""A training that is killed over and over: a rank, the launcher, or everything at once, at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyflow.checkpoint.folder import list_checkpoints
from tests.local.jobs import begin, descendants, logged, train_command, wait_for_update
from tests.local.token_corpus import TokenCorpus

SAVE = 5
"""Updates between two checkpoints."""
SETTINGS = (
    f"train_conf.save_per_step={SAVE}", "train_conf.max_epoch=100000", "train_conf.keep_best=0",
    "train_conf.scheduler=constantlr", "train_conf.optim_conf.lr=1e-4",
)  # fmt: skip
END_SECONDS = 120.0
"""Within which a job whose rank or launcher was killed is to be gone."""


@dataclass(frozen=True)
class Survived:
    """What was left of the work.

    Attributes:
        updates: at which the training ended.
        lost: updates that were computed and computed again after a kill.
        killed: how often each kind of process was.
    """

    updates: int
    lost: int
    killed: dict[str, int]

    @property
    def share(self) -> float:
        """Of the computed updates those that count."""
        return self.updates / (self.updates + self.lost)


def train_through_kills(
    corpus: TokenCorpus, model_dir: Path, kills: int, mean_seconds: float, ranks: Sequence[int], seed: int
) -> Survived:
    """Starts a training again after each kill, with the next number of `ranks`; after the last one it ends.

    Args:
        mean_seconds: between a start's first new update and its end, exponentially distributed.
    """
    chance = random.Random(seed)
    killed = dict.fromkeys(("rank", "launcher", "job"), 0)
    lost = last = 0
    for number in range(kills):
        found = list_checkpoints(str(model_dir)) if model_dir.exists() else []
        lost += last - (found[-1].update if found else 0)
        started = time.time()
        process = begin(train_command(corpus, model_dir, ranks[number % len(ranks)], 10**9, *SETTINGS))
        wait_for_update(model_dir, 1, process, started)
        time.sleep(chance.expovariate(1 / mean_seconds))
        kind = chance.choice(list(killed))
        _kill(process.pid, kind, chance)
        process.wait(END_SECONDS)
        killed[kind] += 1
        last = logged(model_dir)[-1][0]
    found = list_checkpoints(str(model_dir))
    lost += last - found[-1].update
    end = found[-1].update + 20
    process = begin(train_command(corpus, model_dir, ranks[kills % len(ranks)], end, *SETTINGS))
    assert process.wait(600) == 0
    return Survived(end, lost, killed)


def _kill(launcher: int, kind: str, chance: random.Random) -> None:
    """SIGKILL; returns when nothing of the job is left but the launcher's entry, which its parent has to clear."""
    family = descendants(launcher)
    trainers = [member for member in family if b"cosyflow.training" in _command(member)]
    ranks = [member for member in trainers if b"torch.distributed.run" not in _command(member)]
    chosen = {"rank": [chance.choice(ranks)], "launcher": [launcher], "job": family}[kind]
    for member in chosen:
        os.kill(member, signal.SIGKILL)
    deadline = time.monotonic() + END_SECONDS
    while left := [member for member in family if member != launcher and _command(member)]:
        assert time.monotonic() < deadline, f"{left} of a job whose {kind} was killed are there yet"
        time.sleep(0.05)


def _command(process: int) -> bytes:
    """Empty when it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
