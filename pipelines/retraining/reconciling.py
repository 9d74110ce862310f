"""`python -m pipelines reconcile`: the controller as a process, of which one leads."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from functools import partial

from cosyflow.errors import CosyFlowError
from cosyflow.progress import say
from pipelines.retraining.cluster import Cluster
from pipelines.retraining.controller import Controller
from pipelines.retraining.election import LeaseLock, lead
from pipelines.retraining.health import Health, serving
from pipelines.retraining.server import Server

LAST_LOOK_SECONDS = 30.0
"""How long the end waits for a look that has begun."""


def reconcile(cluster: Cluster, server_of: Callable[[str | None], Server], port: int) -> None:
    """Waits to lead, then looks until the process is asked to end, and lets another one lead.

    Raises:
        CosyFlowError: another process leads, because this one could not say for too long that it lives.
    """
    health, ended, worked = Health(), threading.Event(), threading.Event()
    lock = LeaseLock(cluster, f"{socket.gethostname()}-{secrets.token_hex(4)}")
    controller = Controller(cluster, server_of, health, lambda: lock.holds)
    worked.set()

    def work() -> None:
        worked.clear()
        say("reconcile", f"{lock.identity} leads {cluster.namespace}")
        health.values["leads"] = 1
        health.alive()
        try:
            controller.run(ended)
        finally:
            worked.set()

    with serving(health, port):
        try:
            lead(lock, work, partial(say, "reconcile", f"{lock.identity} leads no more"))
        finally:
            ended.set()
            controller.stop()
            worked.wait(LAST_LOOK_SECONDS)
            lock.give_back()
    raise CosyFlowError(f"{lock.identity} could not renew its Lease {lock.name}; start it again")
