"""Ends a training whose parent has ended: the Workflow that it is a step of, or the pod that launched it.

Whoever ends a run from outside kills its launcher, which cannot say goodbye. The cluster knows at once: the first rank
asks its API server every few seconds, with a token that may do nothing else.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosyflow.progress import say

PARENT_VARIABLE = "COSYFLOW_PARENT"
"""Names the parent to a training process; without it nobody asks."""
TOKEN_FOLDER = "/var/run/secrets/cosyflow/training"  # noqa: S105 - a folder
"""Where a pod has `token` and `ca.crt` for its questions; the token there is replaced from time to time."""
ASK_SECONDS = 3.0
ANSWER_SECONDS = 10.0
FORBIDDEN = (401, 403)
MISSING = 404
ENDED_PHASES = ("Succeeded", "Failed", "Error")


class CannotAskError(Exception):
    """The API server refuses the question."""


@dataclass(frozen=True)
class Parent:
    """An object that the API server has at `path`, as long as it has this uid."""

    path: str
    uid: str

    @classmethod
    def of_variable(cls, text: str) -> Parent:
        return cls(*text.split())

    def to_variable(self) -> str:
        return f"{self.path} {self.uid}"

    @property
    def name(self) -> str:
        """As people know it, e.g. "workflows/cosyvoice-x7k2p"."""
        return "/".join(self.path.split("/")[-2:])

    def ending(self, found: dict[str, Any] | None) -> str:
        """Why the parent counts as ended; empty while it goes on. None was found when it is gone.

        Kubeflow Pipelines terminates a run by a deadline of 0 in its Workflow, seconds before anything ends.
        """
        if found is None or found["metadata"]["uid"] != self.uid or "deletionTimestamp" in found["metadata"]:
            return f"{self.name} was deleted"
        spec, phase = found.get("spec", {}), found.get("status", {}).get("phase", "")
        if spec.get("activeDeadlineSeconds") == 0 or spec.get("shutdown"):
            return f"{self.name} was terminated"
        return f"{self.name} has ended ({phase})" if phase in ENDED_PHASES else ""


def ask(parent: Parent, token_folder: Path) -> dict[str, Any] | None:
    """The parent as the API server has it; None when that says that there is none.

    Raises:
        CannotAskError: the server, or the lack of a token, does not let this process ask.
        OSError, HTTPException: the server did not answer, or not as one that is up.
    """
    try:
        token = (token_folder / "token").read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise CannotAskError(f"{error.filename} is not there") from None
    context = ssl.create_default_context(cafile=str(token_folder / "ca.crt"))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
    connection = http.client.HTTPSConnection(host, port, timeout=ANSWER_SECONDS, context=context)
    try:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        connection.request("GET", parent.path, headers=headers)
        response = connection.getresponse()
        status, body = response.status, response.read()
    finally:
        connection.close()
    if status in FORBIDDEN:
        raise CannotAskError(f"the API server answers {status}")
    answer: dict[str, Any] = json.loads(body) if status in (200, MISSING) else {}
    if status == MISSING and "details" in answer:
        return None
    if status != 200:  # also a server that starts and does not know the kind of object yet
        raise http.client.HTTPException(f"the API server answers {status}")
    return answer


@contextmanager
def watching_parent(
    variable: str,
    on_end: Callable[[str], None],
    token_folder: Path = Path(TOKEN_FOLDER),
    interval_seconds: float = ASK_SECONDS,
) -> Iterator[None]:
    """Asks for the parent in a thread while the `with` body runs. What cannot be known ends nothing.

    Args:
        variable: value of PARENT_VARIABLE; nobody asks when it is empty.
        on_end: is called with the reason, once, when the parent has ended.
    """
    if not variable:
        yield
        return
    parent, ended = Parent.of_variable(variable), threading.Event()

    def watch() -> None:
        may_ask = True
        while not ended.is_set():
            try:
                reason = parent.ending(ask(parent, token_folder))
            except CannotAskError as error:
                if may_ask:
                    say("train", f"cannot ask for {parent.name}: {error}; a stop is noticed by the heartbeat alone")
                may_ask, reason = False, ""
            except (OSError, http.client.HTTPException, ValueError):
                reason = ""
            if reason:
                on_end(reason)
                return
            ended.wait(interval_seconds)

    thread = threading.Thread(target=watch, name="parent", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
