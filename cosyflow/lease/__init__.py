"""Who works in a folder: equal work at the same time is done by one process, and the others wait for it.

A lease is a file `<folder>/.leases/<name>.<number>`. Whoever wants the folder creates the file with the next number,
which only one can do; the highest number holds. The holder renews its file every RENEW_SECONDS, and marks it when it is
done. A number that is neither renewed nor marked for SILENT_SECONDS may be taken over, by the next number.

Silence is what an observer has watched on its own clock: equal content for so long, at every look. No two clocks have
to agree, neither those of two machines nor that of the store, whose times may be coarse or jump. When the store does
not answer, or the observer itself stood still, the count starts again, for nobody could renew or see it meanwhile.

The highest number is never removed, so numbers only grow: a holder that stood still for too long sees a higher one
before it changes anything in the folder (`storage.fenced`), and ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cosyflow import storage
from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.lease.records import RUN_VARIABLE, WORK, Holder, Records, is_live, packed, unpacked
from cosyflow.processes import has_ended
from cosyflow.progress import format_seconds, say

__all__ = [
    "LOOK_SECONDS", "RENEW_SECONDS", "RUN_VARIABLE", "SILENT_SECONDS", "WORK", "Claim", "Holder", "Lease",
    "OvertakenError", "Records", "Times", "Wait", "held", "holding", "is_live",
]  # fmt: skip

RENEW_SECONDS = 5.0
SILENT_SECONDS = 30.0
LOOK_SECONDS = 0.5
SAY_SECONDS = 15.0


class OvertakenError(CosyFlowError):
    """This process stood still for so long that another one does its work now."""


def seconds_now() -> float:
    """Seconds on a clock that also runs while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True)
class Times:
    """How often a lease is renewed and looked at, and after how much silence it is taken over, in seconds."""

    renew: float = RENEW_SECONDS
    silent: float = SILENT_SECONDS
    look: float = LOOK_SECONDS
    clock: Callable[[], float] = seconds_now

    @property
    def trusted(self) -> float:
        """How long after its last renewal a holder need not look: nobody can have taken it over."""
        return self.silent / 2

    @property
    def gap(self) -> float:
        """An observer that did not look for so long has not watched."""
        return max(self.silent / 3, 3 * self.look)


DEFAULT_TIMES = Times()


class Lease:
    """A lease that this process has taken."""

    def __init__(self, records: Records, holder: Holder, number: int, times: Times, taken: float) -> None:
        self.number = number
        self.holder = holder
        self._records, self._times = records, times
        self._confirmed, self._renewals = taken, 0
        self._lock = threading.Lock()
        self._lost = ""

    def check(self) -> None:
        """Makes sure that this process still has the lease; looks at the store when it did not do so lately.

        Raises:
            OvertakenError: another process has taken it over.
            CosyFlowError: the store cannot be reached, so that nobody knows.
        """
        with self._lock:
            if not self._lost and self._times.clock() - self._confirmed > self._times.trusted:
                self._renew()
        if self._lost:
            raise OvertakenError(self._lost)

    def renew(self) -> None:
        """Says in the store that the holder lives, and looks whether it still has the lease."""
        with self._lock:
            if not self._lost:
                self._renew()

    def release(self) -> None:
        """Marks the lease as done with."""
        with self._lock:
            if not self._lost:
                self._records.write(self.number, packed(self.holder, self._renewals + 1, released=True))

    def _renew(self) -> None:
        now = self._times.clock()
        mine, _ = unpacked(self._records.read(self.number))
        if mine and mine.token == self.holder.token:
            # A file system on a network shows what others have changed in a folder after one has changed it oneself.
            self._renewals += 1
            self._records.write(self.number, packed(self.holder, self._renewals))
            newest = self._records.newest()
            if newest == self.number:
                self._confirmed = now
                return
        self._lost = self._why_lost()

    def _why_lost(self) -> str:
        newest = self._records.newest()
        other, _ = unpacked(self._records.read(newest)) if newest else (None, False)
        if other is None or other.token == self.holder.token:
            return f"{self._records.folder}: its lease was removed while this process worked there; start it again"
        return (
            f"{self._records.folder}: this process stood still for {self._times.silent:.0f} s or more, and {other} has"
            f" taken over (lease {newest}, ours was {self.number}); it writes nothing any more, wait for the other"
        )

    @property
    def folder(self) -> str:
        return self._records.folder

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renews it in a thread while the `with` body runs."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._times.renew) and not self._lost:
                with suppress(CosyFlowError), storage.impatient():  # an outage: the next attempt is as good
                    self.renew()

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(self._times.renew)


class Claim:
    """The wish of this process for a folder. `attempt` is called again and again until it gives the lease."""

    def __init__(self, records: Records, holder: Holder, times: Times = DEFAULT_TIMES) -> None:
        self.holder = holder
        self._records, self._times = records, times
        self._seen: tuple[int, bytes] | None = None
        self._since = self._looked = 0.0
        self._outage_began: float | None = None
        self.before: Holder | None = None
        """Who is waited for; None where that is not known."""

    def attempt(self) -> Lease | None:
        """Takes the lease when nobody has it any more; None when somebody has, or the store does not answer.

        Raises:
            CosyFlowError: the store refuses, or has not answered for as long as a store is waited for.
        """
        try:
            with storage.impatient():
                lease = self._attempt()
        except OutageError:
            self._seen = None
            now = self._times.clock()
            self._outage_began = now if self._outage_began is None else self._outage_began
            if now - self._outage_began > storage.outage_seconds():
                raise
            return None
        self._outage_began = None
        return lease

    def _attempt(self) -> Lease | None:
        now = self._times.clock()
        newest = self._records.newest()
        content = self._records.read(newest) if newest else b""
        holder, released = unpacked(content)
        if holder and holder.token == self.holder.token:  # the answer to our creation was lost
            return self._taken(newest, now)
        self.before = None if released else holder
        if newest and not released and not self._may_be_taken_over(newest, content, holder, now):
            return None
        number = newest + 1
        if not self._records.create(number, packed(self.holder, 0)) or self._records.newest() != number:
            return None  # somebody was quicker, now or long ago
        return self._taken(number, now)

    def _taken(self, number: int, now: float) -> Lease:
        self._records.remove_below(number)
        return Lease(self._records, self.holder, number, self._times, now)

    def _may_be_taken_over(self, number: int, content: bytes, holder: Holder | None, now: float) -> bool:
        if holder and (has_ended(holder.process) or (holder.run and holder.run == self.holder.run)):
            return True  # a run does each of its tasks again only after the attempt before has ended
        if self._seen != (number, content) or now - self._looked > self._times.gap:
            self._seen, self._since = (number, content), now
        self._looked = now
        return now - self._since >= self._times.silent


class Wait:
    """Attempts for a claim that say from time to time who is waited for.

    Attributes:
        lease: once it is taken.
        waited: who was waited for; None when nobody was.
    """

    def __init__(self, claim: Claim, log: Callable[[str], None]) -> None:
        self.lease: Lease | None = None
        self.waited: Holder | None = None
        self._claim, self._log = claim, log
        self._start = self._said = time.monotonic()

    def attempt(self) -> Lease | None:
        """The lease, if it can be had now or was taken before. Raises CosyFlowError when the store refuses."""
        self.lease = self.lease or self._claim.attempt()
        now, other = time.monotonic(), self._claim.before
        if self.lease is None and other and (self.waited is None or now - self._said >= SAY_SECONDS):
            same = "the same " if other.what == self._claim.holder.what else ""
            since = f" ({format_seconds(now - self._start)} so far)" if self.waited else ""
            self._log(f"waits for {other}, which does {same}{other.what}{since}")
            self.waited, self._said = other, now
        return self.lease


@contextmanager
def holding(lease: Lease) -> Iterator[None]:
    """Renews the lease in the `with` body, makes each write and removal below its folder only while it still holds,
    and releases it at the end.

    Raises:
        OvertakenError: this process stood still for too long, and another one does its work.
    """
    try:
        with lease.renewing(), storage.fenced(lease.folder, lease.check):
            yield
    except Exception as error:
        if not isinstance(error, OvertakenError):
            _check_if_possible(lease)  # the other one changes what this one reads
        raise
    finally:
        with suppress(CosyFlowError):
            lease.release()


@contextmanager
def held(
    folder: str, what: str, label: str = "", name: str = WORK, times: Times = DEFAULT_TIMES
) -> Iterator[Holder | None]:
    """Has the folder to itself in the `with` body, as `holding` does, after it has waited for whoever works there.

    Args:
        folder: local folder or s3:// prefix.
        what: the work, for those who wait for it.
        label: of the lines that say who is waited for; `what` where it is empty.
        name: of the lease; those of other names in the same folder do not matter.

    Yields whom it waited for; None when the folder was free. On a store that overwrites what it should only create
    there are no leases (`storage.creates_once`), and nobody waits.

    Raises:
        OvertakenError: this process stood still for too long, and another one does its work.
    """
    if not storage.creates_once(folder):
        yield None
        return
    missing = _missing_folders(folder)
    records = Records(folder, name)
    wait = Wait(Claim(records, Holder(what), times), partial(say, label or what))
    while (lease := wait.attempt()) is None:
        time.sleep(times.look)
    try:
        with holding(lease):
            yield wait.waited
    except BaseException:
        if lease.number == 1:
            _remove_traces(records, missing)
        raise


def _check_if_possible(lease: Lease) -> None:
    try:
        with storage.impatient():
            lease.check()
    except OvertakenError:
        raise
    except CosyFlowError:  # nobody knows
        return


def _missing_folders(folder: str) -> list[Path]:
    """A folder of this machine and those above it that are not there, lowest first."""
    if storage.is_remote(folder):
        return []
    path = Path(storage.join(folder)).absolute()
    return [each for each in (path, *path.parents) if not each.exists()]


def _remove_traces(records: Records, missing: list[Path]) -> None:
    """Leaves a folder of this machine, where work failed that nobody had begun before, as it was."""
    place, first = Path(records.place), Path(records.uri(1))
    if not storage.is_remote(records.folder):
        with suppress(OSError):  # there is more in them, or somebody else works there by now
            if os.listdir(place) == [first.name]:  # noqa: PTH208 - names alone
                first.unlink()
                for folder in (place, *missing):
                    folder.rmdir()
