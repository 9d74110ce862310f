"""What a Retraining of a cluster wants now: read, with its clock, its data and its content, and what cannot be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from cosyflow import storage
from cosyflow.errors import CosyFlowError, RefusalError
from pipelines.retraining import clock
from pipelines.retraining.clock import Clock
from pipelines.retraining.content import content_hash, data_digest
from pipelines.retraining.decision import SUCCEEDED, Observed, Wanted
from pipelines.retraining.model import COMMIT, Retraining, Spec, read
from pipelines.retraining.status import DATA_UNREACHABLE, INVALID, DataSeen, Found, Object, Trouble

DATA_SECONDS = 60.0
"""How often new data are looked for."""


@dataclass(frozen=True)
class Subject:
    """A Retraining of the cluster.

    Attributes:
        item: as the API server has it.
        one: None where it is wrong.
        found: what is known of it, without what a server of runs knows.
    """

    item: Object
    one: Retraining | None
    found: Found

    @property
    def name(self) -> str:
        return str(self.item["metadata"]["name"])

    @property
    def before(self) -> Object:
        """Its status until now."""
        return dict(self.item.get("status") or {})

    def wanted(self, spec: Spec) -> Wanted:
        found, ticks = self.found, self.found.clock
        changed = found.data.changed if found.data else None
        return Wanted(self.name, spec, found.content, changed, ticks.tick, ticks.next_tick)

    def in_trouble(self, trouble: Trouble) -> Subject:
        return replace(self, found=replace(self.found, trouble=trouble))


class Looks:
    """Looks at Retrainings, and remembers what takes time: which content equal declarations and data have, and when the
    data of each were looked at."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[str, Retraining]] = {}
        self._contents: dict[tuple[str, str], str] = {}
        self._data: dict[str, datetime] = {}

    def at(self, item: Object, now: datetime) -> Subject:
        metadata = item["metadata"]
        before = dict(item.get("status") or {})
        generation = int(metadata.get("generation", 0))
        found = Found(generation, commit=(metadata.get("annotations") or {}).get(COMMIT, ""))
        try:
            one = self._declared(item)
        except RefusalError as refusal:
            said = "; ".join(str(problem) for problem in refusal.problems)
            return Subject(item, None, replace(found, trouble=Trouble(INVALID, said)))
        ticks = clock.look(one.spec.trigger.schedule, _clock_of(before), now)
        found = replace(found, spec=one.spec, clock=ticks)
        try:
            data = self._data_of(one, metadata["uid"], before, ticks, generation, now)
        except CosyFlowError as error:  # what is known of them stays, so that they are looked at again
            return Subject(item, one, replace(found, trouble=Trouble(DATA_UNREACHABLE, str(error))))
        content = self._content_of(one, metadata["uid"], generation, data.digest)
        return Subject(item, one, replace(found, content=content, data=data))

    def forget_all_but(self, uids: set[str]) -> None:
        """What is remembered of Retrainings that are gone goes too."""
        self._read = {uid: entry for uid, entry in self._read.items() if uid in uids}
        self._data = {uid: entry for uid, entry in self._data.items() if uid in uids}
        self._contents = {key: entry for key, entry in self._contents.items() if key[0] in uids}

    def _declared(self, item: Object) -> Retraining:
        """Read once, as long as it stays as it is."""
        metadata = item["metadata"]
        text = json.dumps([item["spec"], metadata.get("annotations")], sort_keys=True)
        known = self._read.get(metadata["uid"])
        if known is None or known[0] != text:
            declared: Object = {key: entry for key, entry in item.items() if key != "status"}
            known = text, read(declared, metadata["name"])
            self._read[metadata["uid"]] = known
        return known[1]

    def _data_of(
        self, one: Retraining, uid: str, before: Mapping[str, Any], ticks: Clock, generation: int, now: datetime
    ) -> DataSeen:
        """The data: looked at when it is declared anew, at a tick, and every so often for `onNewData`.

        Without `onNewData` the data of other moments are nobody's business: a recording that comes starts nothing.
        """
        kept = before.get("data") or {}
        known = DataSeen(
            str(kept.get("digest", "")), _moment(kept.get("changed")), _moment(kept.get("tick")), kept.get("generation")
        )
        looked = self._data.get(uid)
        is_due = looked is None or not timedelta(0) <= now - looked < timedelta(seconds=DATA_SECONDS)
        due = one.spec.trigger.on_new_data is not None and is_due
        if known.digest and (known.generation, known.tick) == (generation, ticks.tick) and not due:
            return known
        with storage.impatient():
            digest = data_digest(one.settings, look=True)
        self._data[uid] = now
        changed = now if known.digest and known.digest != digest else known.changed
        return DataSeen(digest, changed, ticks.tick, generation)

    def _content_of(self, one: Retraining, uid: str, generation: int, data: str) -> str:
        key = uid, f"{generation} {data}"
        if key not in self._contents:
            self._contents = {entry: known for entry, known in self._contents.items() if entry[0] != uid}
            self._contents[key] = content_hash(one, data)
        return self._contents[key]


def remembered(subject: Subject) -> list[Observed]:
    """The runs that have succeeded and stand in the status: the server may have removed them since."""
    runs = []
    for entry in subject.before.get("runs", ()):
        started = _moment(entry.get("started"))
        if entry.get("state") == SUCCEEDED and started:
            finished, tick = _moment(entry.get("finished")), _moment(entry.get("tick"))
            content, retry = str(entry["contentHash"]), int(entry.get("retry", 0))
            runs.append(Observed(entry["id"], subject.name, content, retry, SUCCEEDED, started, finished, tick))
    return runs


def _clock_of(status: Mapping[str, Any]) -> Clock:
    return Clock(status.get("schedule", ""), _moment(status.get("lastTick")), _moment(status.get("nextLook")))


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
