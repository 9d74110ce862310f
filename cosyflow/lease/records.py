"""The files of leases: who holds one, and what is written of that."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from urllib.parse import quote

from cosyflow import storage
from cosyflow.errors import MissingError
from cosyflow.processes import HOST, has_ended, this_process

RUN_VARIABLE = "COSYFLOW_RUN_ID"
WORK = "work"
"""The name of a folder's lease where nothing else is said."""
LIVE_SECONDS = 600.0
"""A lease that was renewed so lately is one that somebody may have, for those who do not watch it."""


@dataclass(frozen=True)
class Holder:
    """Who has a lease, or wants it.

    Attributes:
        what: the work, e.g. "prepare dev-clean".
        run: id of the run that the work is a task of; "" outside of one.
        process: see `cosyflow.processes`.
        token: of this attempt alone.
    """

    what: str
    host: str = HOST
    pid: int = field(default_factory=os.getpid)
    run: str = field(default_factory=lambda: os.environ.get(RUN_VARIABLE, ""))
    process: str = field(default_factory=lambda: this_process())
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def __str__(self) -> str:
        return f"{self.run or f'process {self.pid}'} on {self.host}"


class Records:
    """The files of one lease."""

    def __init__(self, folder: str, name: str = WORK) -> None:
        self.folder = folder
        self.name = quote(name, safe="")
        self.place = storage.join(folder, storage.LEASES)

    def uri(self, number: int) -> str:
        return storage.join(self.place, f"{self.name}.{number}")

    def numbers(self) -> list[int]:
        """Lowest first."""
        names = (file.path.rpartition(".") for file in storage.list_files(self.place))
        return sorted(int(number) for name, _, number in names if name == self.name and number.isdecimal())

    def newest(self) -> int:
        """The highest number; 0 when there never was a holder."""
        return max(self.numbers(), default=0)

    def read(self, number: int) -> bytes:
        """What the file of a number says; nothing when a higher number has removed it."""
        try:
            return storage.read_bytes(self.uri(number))
        except MissingError:
            return b""

    def create(self, number: int, content: bytes) -> bool:
        return storage.create(self.uri(number), content)

    def write(self, number: int, content: bytes) -> None:
        storage.write_bytes(self.uri(number), content)

    def remove_below(self, number: int) -> None:
        """Removes what earlier holders have left."""
        for lower in self.numbers():
            if lower < number:
                storage.remove(self.uri(lower))
        storage.remove_unfinished(self.place, f"{self.name}.")


def packed(holder: Holder, renewals: int, released: bool = False) -> bytes:
    return json.dumps({**asdict(holder), "renewals": renewals, "released": released}).encode()


def unpacked(content: bytes) -> tuple[Holder | None, bool]:
    """The holder, and whether it is done. A file that is being created says neither."""
    try:
        values = json.loads(content)
        values.pop("renewals")
        released = bool(values.pop("released"))
        return Holder(**values), released
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, False


def is_live(folder: str, now: float) -> bool:
    """Whether somebody may be working in a folder, as far as one look can say.

    Args:
        now: seconds since 1970 by the clock of the store.
    """
    place = storage.join(folder, storage.LEASES)
    for file in storage.list_files(place):
        uri = storage.join(place, file.path)
        try:
            holder, released = unpacked(storage.read_bytes(uri))
            is_recent = now - storage.modified(uri) < LIVE_SECONDS
        except MissingError:  # removed meanwhile, by somebody who lives
            return True
        if is_recent and not released and not (holder and has_ended(holder.process)):
            return True
    return False
