"""Runs commands at the same time, each in a process of its own that is forked from one with everything imported.

As a program it reads the commands from standard input, and writes their exit statuses to standard output, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Command:
    """`cosyflow WORDS`, or `python -m cosyflow.training WORDS` when `is_training`, begun after `delay` seconds."""

    words: list[str]
    delay: float
    log: str
    is_training: bool = False


def run_at_once(commands: Sequence[Command], timeout: float = 300) -> list[int]:
    """Their exit statuses. What each printed is in its log."""
    asked = json.dumps([asdict(command) for command in commands])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    runner = [sys.executable, "-m", "tests.unit.at_once.commands"]
    done = subprocess.run(
        runner, input=asked, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    statuses: list[int] = json.loads(done.stdout)
    return statuses


def _do(command: dict[str, Any]) -> int:
    with Path(command["log"]).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    time.sleep(command["delay"])
    if command["is_training"]:
        from cosyflow.training.process import main as train

        sys.argv = ["training", *command["words"]]
        train()
        return 0
    from cosyflow.cli import main as run

    return run(command["words"])


def _fork(command: dict[str, Any]) -> int:
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        status = _do(command)
    except SystemExit as ended:
        print(ended.code, file=sys.stderr)
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    commands = json.load(sys.stdin)
    import cosyflow.cli.download
    import cosyflow.cli.prepare
    import cosyflow.corpus.download
    import cosyflow.corpus.prepare

    if any(command["is_training"] for command in commands):
        import cosyflow.training.loop
        import cosyflow.training.parts  # noqa: F401
    processes = [_fork(command) for command in commands]
    ends = dict(os.wait() for _ in processes)
    print(json.dumps([os.waitstatus_to_exitcode(ends[process]) for process in processes]))


if __name__ == "__main__":
    main()
