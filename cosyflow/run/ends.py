"""What each task of a run leaves below `<data root>/runs/<run id>/`, for those that come after it to read.

A task that runs however the others ended may depend on none of them, so this is how the report knows them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from cosyflow import storage
from cosyflow.provenance import LOCAL_RUN
from cosyflow.run.config import DECLARED
from cosyflow.run.execute import RUN_VARIABLE, is_skipped
from cosyflow.run.record import RUNS
from cosyflow.stage import Manifest
from cosyflow.unexpected import reading

State = Literal["made", "reused", "skipped", "failed"]
PLAN = "plan"


@dataclass(frozen=True)
class End:
    """How a task ended; `manifest` is of what it made or reused, as JSON values, and `error` why it failed."""

    stage: str
    name: str
    state: State
    seconds: float = 0.0
    error: str = ""
    manifest: dict[str, Any] | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> End:
        if is_skipped(manifest):
            return cls(manifest.stage, manifest.name, "skipped")
        seconds = 0.0 if manifest.reused else manifest.seconds
        return cls(
            manifest.stage, manifest.name, "reused" if manifest.reused else "made", seconds, "", asdict(manifest)
        )

    def read_manifest(self) -> Manifest | None:
        return Manifest.of(self.manifest, "manifest") if self.manifest else None


def run_id() -> str:
    """Of the run that this process is a task of; "" outside of one."""
    return os.environ.get(RUN_VARIABLE, "")


def local_run_id() -> str:
    """A name for a run on this machine."""
    return f"{LOCAL_RUN}{datetime.now().astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def leave(data_root: str, end: End, run: str = "") -> None:
    """Leaves a task's end; outside of a run nothing."""
    run = run or run_id()
    if run:
        storage.write_json(_uri(data_root, run, f"{end.stage}.{end.name}" if end.name else end.stage), asdict(end))


def leave_plan(
    data_root: str, ends: Sequence[End], record: str, run: str = "", declared: Mapping[str, str] | None = None
) -> None:
    """Leaves what the plan found done: tasks that need not run leave nothing themselves.

    Args:
        declared: what the run was declared as (`cosyflow.run.declared`).
    """
    run = run or run_id()
    if run:
        left = {"record": record, "ends": [asdict(end) for end in ends]}
        storage.write_json(_uri(data_root, run, PLAN), {**left, **({DECLARED: dict(declared)} if declared else {})})


def read_declared(data_root: str, run: str) -> dict[str, str]:
    """What a run was declared as; nothing for a run of somebody, or one without a plan."""
    uri = _uri(data_root, run, PLAN)
    if not run or not storage.exists(uri):
        return {}
    with reading(uri, "what a task of a run leaves", "remove it and run the task again"):
        return {str(name): str(value) for name, value in storage.read_json(uri).get(DECLARED, {}).items()}


def read_ends(data_root: str, run: str) -> tuple[list[End], str]:
    """The ends of a run's tasks, those that the plan foresaw first, and the URI of its record ("" when it has none)."""
    folder = storage.join(data_root, RUNS, run)
    found: dict[tuple[str, str], End] = {}
    record = ""
    names = [file.path for file in storage.list_files(folder) if file.path.endswith(".json")]
    for name in sorted(names, key=lambda name: name != f"{PLAN}.json"):
        uri = storage.join(folder, name)
        content = storage.read_json(uri)
        with reading(uri, "what a task of a run leaves", "remove it and run the task again"):
            if name == f"{PLAN}.json" and "ends" in content:
                record = str(content["record"])
                ends = [_checked(entry) for entry in content["ends"]]
            else:
                ends = [_checked(content)]
            found |= {(end.stage, end.name): end for end in ends}
    return list(found.values()), record


def _checked(content: dict[str, Any]) -> End:
    end: End = TypeAdapter(End).validate_python(content)
    end.read_manifest()
    return end


def _uri(data_root: str, run: str, name: str) -> str:
    return storage.join(data_root, RUNS, run, f"{name}.json")
