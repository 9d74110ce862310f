"""`python -m pipelines diff` and `apply`: what the declared runs of files and folders would start, and starting it."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cosyflow.credentials import withdraw
from cosyflow.errors import OutageError, Problem, RefusalError
from pipelines.retraining.content import content_hash, data_digest
from pipelines.retraining.decision import FAILED, SUCCEEDED, TO_DO, WORKING, Action, Observed, Wanted, What, decide
from pipelines.retraining.files import read_retrainings
from pipelines.retraining.model import Origin, Retraining
from pipelines.retraining.server import Server

T = TypeVar("T")

SOMETHING_TO_DO = 3
POLL_SECONDS = 10.0
PATIENCE_SECONDS = 600.0
"""How long `apply` waits for a server that does not answer."""
STATES = (WORKING, SUCCEEDED, FAILED)


def diff(paths: Sequence[Path], state: Path | None, server: Server | None) -> list[Action]:
    """What would be done for the Retrainings of files and folders; nothing is changed.

    Args:
        state: a file with what is known of runs, in place of a server: `read_state`. Data are known by address then.
        server: asked where there is no such file.

    Raises:
        RefusalError: a Retraining or the state is wrong, or there is neither state nor server.
        CosyFlowError: the server or the data cannot be looked at.
    """
    retrainings = read_retrainings(paths)
    now = datetime.now(UTC)
    if state is not None:
        observed, scheduled = read_state(state)
        return decide([wanted(one, now, look=False) for one in retrainings], observed, now, scheduled)
    if server is None:
        raise RefusalError([Problem("--host", "is missing; give a server's address or KFP_HOST, or --state FILE")])
    return decide([wanted(one, now, look=True) for one in retrainings], server.runs(), now)


def wanted(one: Retraining, now: datetime, look: bool) -> Wanted:
    """A Retraining with the hash of its content.

    Args:
        look: look at the data, not only at their address.
    """
    content = content_hash(one, data_digest(one.settings, look))
    schedule = one.spec.trigger.schedule
    return Wanted(one.name, one.spec, content, next_tick=schedule.next_after(now) if schedule else None)


def apply(paths: Sequence[Path], server: Server, wait: bool) -> tuple[list[Action], dict[str, str]]:
    """Does once what `diff` shows. Returns what was decided first, and the state of each run that it is about.

    Args:
        wait: until the runs have ended, also those that others started; what had to wait for them is started then.

    Raises:
        RefusalError: a Retraining is wrong.
        CosyFlowError: the server refuses, or did not answer for PATIENCE_SECONDS.
    """
    retrainings = {one.name: one for one in read_retrainings(paths)}
    origin = _origin(paths[0])
    first: list[Action] = []
    runs: dict[str, str] = {}
    while True:
        now = datetime.now(UTC)
        known = [wanted(one, now, look=True) for one in retrainings.values()]
        actions = decide(known, patiently(server.runs), now)
        first = first or actions
        for action in actions:
            if action.action in (What.START, What.REPLACE):
                runs[_start(server, retrainings[action.retraining], action, origin)] = WORKING
        contents = {action.content for action in actions if action.action is not What.NONE}
        waited = {action.retraining for action in actions if action.action is What.WAIT}
        for run in patiently(server.runs):
            if run.state == WORKING and (run.content in contents or run.retraining in waited):
                runs[run.id] = WORKING
        working = [run for run, state in runs.items() if state == WORKING]
        if not wait or not working:
            return first, runs
        runs |= {run: _wait(server, run) for run in working}
        if FAILED in runs.values():
            return first, runs


def _start(server: Server, one: Retraining, action: Action, origin: Origin) -> str:
    return patiently(lambda: server.start(one, action, origin))


def _wait(server: Server, run: str) -> str:
    """The state in which a run ends."""
    while (state := patiently(functools.partial(server.state, run))) == WORKING:
        time.sleep(POLL_SECONDS)
    return state


def patiently(work: Callable[[], T]) -> T:
    """What `work` returns; while the server does not answer it is tried again, for PATIENCE_SECONDS."""
    end, pause = time.monotonic() + PATIENCE_SECONDS, 1.0
    while True:
        try:
            return work()
        except OutageError:
            if time.monotonic() + pause > end:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 30.0)


def read_state(path: Path) -> tuple[list[Observed], list[str]]:
    """What is known of runs.

    Of `{"runs": [{"id", "retraining", "hash", "retry", "state", "started"}], "scheduled": [NAME]}` everything may be
    left out but a run's Retraining, hash and state; `{}` is nothing known.

    Raises:
        RefusalError: the file is not that.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = [_run(number, entry) for number, entry in enumerate(content.get("runs", ()))]
        scheduled = [str(name) for name in content.get("scheduled", ())]
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        text = f"{path}: not a state ({type(error).__name__}: {error}); write {{}} where nothing is known"
        raise RefusalError([Problem("--state", text)]) from error
    return runs, scheduled


def _run(number: int, entry: Mapping[str, Any]) -> Observed:
    if entry["state"] not in STATES:
        raise ValueError(f"runs: {number}: state {entry['state']!r} is not one of {', '.join(STATES)}")
    started = datetime.fromisoformat(entry.get("started", "1970-01-01T00:00:00+00:00"))
    started = started if started.tzinfo else started.replace(tzinfo=UTC)
    name = str(entry.get("id", f"run-{number}"))
    return Observed(
        name, str(entry["retraining"]), str(entry["hash"]), int(entry.get("retry", 0)), entry["state"], started
    )


def has_something(actions: Sequence[Action]) -> bool:
    return any(action.action in TO_DO for action in actions)


def show(actions: Sequence[Action]) -> str:
    """A line for each action, for people."""
    return "".join(
        f"{action.action.value:<10} {action.retraining:<24} {action.content[:12]}  {action.reason}\n"
        for action in actions
    )


def _origin(path: Path) -> Origin:
    """The repository that a file or folder lies in, and its commit."""
    folder = path if path.is_dir() else path.parent
    return Origin(_git(folder, "remote", "get-url", "origin"), _git(folder, "rev-parse", "HEAD"))


def _git(folder: Path, *words: str) -> str:
    """What Git answers; "" outside of a repository."""
    try:
        asked = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return withdraw(asked.stdout.strip()) if asked.returncode == 0 else ""
