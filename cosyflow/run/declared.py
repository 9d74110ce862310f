"""Of a run that somebody declared: which content it does, and that no other run does the same.

A server makes two runs of two equal requests, and one whose answer was lost may be sent again. So who starts a declared
run writes under `declared` of its file what it is of; the first of equal runs that is planned claims that, and others
end. Runs of people have no such line: where they do equal work, they wait for each other (`cosyflow.lease`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from cosyflow import storage
from cosyflow.errors import Problem, RefusalError
from cosyflow.run.config import DECLARED, read_whole
from cosyflow.run.record import RUNS, Record
from cosyflow.unexpected import reading

CLAIMS = f"{RUNS}/claims"
LONGEST_NAME = 64


@dataclass(frozen=True)
class Declared:
    """What a run is of.

    Attributes:
        retraining: who declared it.
        content: a hash of all that it does.
        attempt: of equal content, those with another one are other runs: "r0", "r1", a tick of a schedule.
        repository: "" where it is not known, as the next.
        commit: that declared it.
    """

    retraining: str
    content: str
    attempt: str
    repository: str = ""
    commit: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What is known of it."""
        return {name: value for name, value in asdict(self).items() if value}

    def to_json(self) -> dict[str, Any]:
        return {DECLARED: self.facts}


def declared_in(described: str) -> Declared | None:
    """What a run's file says that it is of; None for a run of somebody.

    Raises:
        RefusalError: it says something else.
    """
    given = read_whole(described).get(DECLARED)
    if given is None:
        return None
    names = {entry.name for entry in fields(Declared)}
    needed = {"retraining", "content", "attempt"}
    texts = isinstance(given, Mapping) and all(isinstance(value, str) for value in given.values())
    if not isinstance(given, Mapping) or not texts or not needed <= given.keys() <= names:
        text = f"{given!r} is not what starts a declared run; remove it"
        raise RefusalError([Problem(DECLARED, text)])
    if not all(value.isprintable() and "/" not in value for value in (given["content"], given["attempt"])):
        raise RefusalError([Problem(DECLARED, "content and attempt name a file; remove it")])
    return Declared(**given)


def claim(declared: Declared, record: Record, run: str) -> None:
    """Says below the data root that a run does what is declared, unless another one has said so.

    The claim of a run is never taken back: a task of it that is started again finds it. Another attempt has another
    one, and so has a run whose settings somebody changed.

    Args:
        run: id of this run.

    Raises:
        RefusalError: another run does it.
        CosyFlowError: the store cannot be reached.
    """
    name = f"{declared.attempt}-{record.digest[:16]}.json"
    uri = storage.join(record.run.data_root, CLAIMS, declared.content[:LONGEST_NAME], name)
    storage.create(uri, json.dumps({"run": run, **asdict(declared)}, indent=2).encode())
    content = storage.read_json(uri)
    with reading(uri, "the claim of a declared run", "remove it and start the run again"):
        holder = str(content["run"])
    if holder != run:
        text = (
            f"duplicate of run {holder}, which does the same for Retraining {declared.retraining}; nothing was done."
            " To run it again raise spec.retry, or take `declared` out of the run's settings"
        )
        raise RefusalError([Problem(DECLARED, text)])
