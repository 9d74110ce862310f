"""The decision: whatever happens, never two runs of one content that work or have succeeded, and never none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from pipelines.retraining.clock import Clock, look
from pipelines.retraining.decision import FAILED, SUCCEEDED, WORKING, Observed, Wanted, What, decide, needless_by
from pipelines.retraining.model import Concurrency, Schedule, Spec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN = {"data_root": "s3://bucket/data"}
NAMES = ("a", "b")


def wanted(name: str = "a", content: str = "c1", **spec: Any) -> Wanted:
    return Wanted(name, Spec.model_validate({"run": RUN, **spec}), content)


def run(content: str, state: str, retraining: str = "a", retry: int = 0, age: float = 60) -> Observed:
    return Observed(f"run-{content}-{retry}", retraining, content, retry, state, NOW - timedelta(seconds=age))


def action(one: Wanted, *observed: Observed) -> What:
    (decided,) = decide([one], observed, NOW)
    return decided.action


def test_new_content_starts_a_run_and_known_content_does_not() -> None:
    assert action(wanted()) is What.START
    assert action(wanted(), run("c1", WORKING)) is What.WAIT
    assert action(wanted(), run("c1", SUCCEEDED)) is What.NONE
    assert action(wanted(), run("c0", SUCCEEDED)) is What.START


def test_a_failed_run_is_repeated_when_retry_is_raised_and_only_then() -> None:
    assert action(wanted(), run("c1", FAILED)) is What.NONE
    assert action(wanted(retry=1), run("c1", FAILED)) is What.START
    assert action(wanted(retry=1), run("c1", FAILED), run("c1", FAILED, retry=1)) is What.NONE


def test_newer_content_waits_replaces_or_runs_beside() -> None:
    older = run("c0", WORKING)
    assert action(wanted(), older) is What.WAIT
    assert action(wanted(concurrency="Allow"), older) is What.START
    (decided,) = decide([wanted(concurrency="Replace")], [older], NOW)
    assert (decided.action, decided.ends) == (What.REPLACE, (older.id,))


def test_content_whose_run_gave_way_runs_when_the_newer_is_reverted() -> None:
    gave_way = replace(run("c1", FAILED, age=90), canceled=True)
    newer = run("c2", WORKING, age=60)
    (decided,) = decide([wanted(concurrency="Replace")], [gave_way, newer], NOW)
    assert (decided.action, decided.ends, decided.again) == (What.REPLACE, (newer.id,), 1)
    assert needless_by(decided, 0, [gave_way]) is None
    assert needless_by(decided, 0, [gave_way, replace(gave_way, id="it", state=WORKING, again=1)])
    assert action(wanted(), gave_way) is What.NONE  # a person ended it


def test_content_gave_way_although_the_time_of_day_was_put_back() -> None:
    ended = NOW - timedelta(hours=1)
    gave_way = replace(run("c1", FAILED, age=0), finished=ended, canceled=True)
    newer = replace(run("c2", SUCCEEDED), started=ended)
    (decided,) = decide([wanted()], [gave_way, newer], NOW)
    assert (decided.action, decided.again) == (What.START, 1)


def test_content_that_was_ended_by_hand_may_be_run_by_another() -> None:
    by_hand = replace(run("c1", FAILED), canceled=True)
    assert [one.action for one in decide([wanted(), wanted("b")], [by_hand], NOW)] == [What.NONE, What.NONE]
    assert [one.action for one in decide([wanted(content="c2"), wanted("b")], [by_hand], NOW)] == [What.START] * 2


def test_of_two_alike_one_starts_and_the_other_waits() -> None:
    assert [one.action for one in decide([wanted("b"), wanted("a")], [], NOW)] == [What.START, What.WAIT]
    assert action(wanted("b"), run("c1", SUCCEEDED, "a")) is What.NONE


def test_after_waits_for_the_newest_content_of_the_other() -> None:
    second = wanted("b", "c2", trigger={"after": "a"})
    assert [one.action for one in decide([wanted(), second], [run("c0", SUCCEEDED)], NOW)] == [What.START, What.WAIT]
    assert [one.action for one in decide([wanted(), second], [run("c1", SUCCEEDED)], NOW)] == [What.NONE, What.START]
    assert action(second) is What.WAIT  # the other is not declared


def test_suspended_starts_nothing() -> None:
    assert action(wanted(suspend=True)) is What.NONE


def test_new_data_must_be_quiet() -> None:
    one = wanted(trigger={"onChange": False, "onNewData": {"quietSeconds": 600}})
    assert action(replace(one, data_changed=NOW - timedelta(seconds=599))) is What.WAIT
    assert action(replace(one, data_changed=NOW - timedelta(seconds=600))) is What.START


def test_a_tick_starts_new_content_and_old_content_only_by_force() -> None:
    schedule = {"cron": "0 3 * * *"}
    one = replace(wanted(trigger={"onChange": False, "schedule": schedule}), tick=NOW - timedelta(seconds=30))
    assert action(replace(one, tick=None)) is What.NONE
    assert action(one) is What.START
    assert action(one, run("c1", SUCCEEDED)) is What.NONE
    forced = replace(one, spec=wanted(trigger={"onChange": False, "schedule": {**schedule, "force": True}}).spec)
    assert action(forced, run("c1", SUCCEEDED, age=60)) is What.START
    assert action(forced, run("c1", SUCCEEDED, age=10)) is What.NONE
    assert action(forced, run("c1", WORKING, age=60)) is What.WAIT  # ticks never overlap


def test_a_clock_is_begun_and_ended_where_the_caller_keeps_clocks() -> None:
    one = replace(wanted(trigger={"schedule": {"cron": "0 3 * * *"}}), next_tick=NOW)
    done = [run("c1", SUCCEEDED)]
    assert decide([one], done, NOW, [])[0].action is What.SCHEDULE
    assert decide([one], done, NOW, ["a"])[0].action is What.NONE
    assert decide([one], done, NOW)[0].action is What.NONE
    assert decide([wanted()], done, NOW, ["a"])[0].action is What.UNSCHEDULE
    assert decide([], [], NOW, ["a"])[0].action is What.UNSCHEDULE


@dataclass
class World:
    """A Git repository, a server and a clock, in which commits are made and runs end."""

    contents: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, "c0"))
    retries: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    concurrency: Concurrency = Concurrency.WAIT
    schedule: Schedule | None = None
    clock: Clock = field(default_factory=Clock)
    runs: list[Observed] = field(default_factory=list)
    now: datetime = NOW

    def wanted(self) -> list[Wanted]:
        self.clock = look(self.schedule, self.clock, self.now)
        trigger = {"schedule": self.schedule.model_dump()} if self.schedule else {}
        every = [
            wanted(name, self.contents[name], retry=self.retries[name], concurrency=self.concurrency, trigger=trigger)
            for name in NAMES
        ]
        return [replace(one, tick=self.clock.tick, next_tick=self.clock.next_tick) for one in every]

    def reconcile(self, seen: list[Observed] | None = None) -> list[What]:
        """One look and what follows; before a run is made its content and name are looked up on the server."""
        decided = decide(self.wanted(), self.runs if seen is None else seen, self.now)
        for one in decided:
            if one.action in (What.START, What.REPLACE):
                retry = self.retries[one.retraining]
                if needless_by(one, retry, self.runs) is None:
                    for run in [run for run in self.runs if run.id in one.ends and run.state == WORKING]:
                        self._ended(run, FAILED, canceled=True)
                    name, started = f"run-{len(self.runs)}", self.now
                    self.runs.append(
                        Observed(
                            name, one.retraining, one.content, retry, WORKING, started, tick=one.tick, again=one.again
                        )
                    )
        return [one.action for one in decided]

    def end(self, state: str) -> None:
        if working := [run for run in self.runs if run.state == WORKING]:
            self._ended(working[0], state)

    def _ended(self, run: Observed, state: str, canceled: bool = False) -> None:
        self.runs[self.runs.index(run)] = replace(run, state=state, finished=self.now, canceled=canceled)


steps = some.lists(
    some.one_of(
        some.tuples(some.just("commit"), some.sampled_from(NAMES), some.sampled_from(["c0", "c1", "c2", "c3"])),
        some.tuples(some.just("retry"), some.sampled_from(NAMES), some.just("")),
        some.tuples(some.just("end"), some.sampled_from([SUCCEEDED, FAILED]), some.just("")),
        some.tuples(some.just("look"), some.just(""), some.just("")),
        some.tuples(some.just("look at old state"), some.just(""), some.just("")),
        some.tuples(some.just("clock"), some.sampled_from(["-3600", "300", "1800", "7200"]), some.just("")),
    ),
    max_size=40,
)


schedules = some.sampled_from([None, Schedule(cron="0 * * * *"), Schedule(cron="0 * * * *", force=True)])


@given(steps, some.sampled_from(list(Concurrency)), schedules)
def test_no_content_works_or_succeeds_twice_and_none_is_forgotten(
    steps: list[tuple[str, str, str]], concurrency: Concurrency, schedule: Schedule | None
) -> None:
    """A tick that forces a run has one of its own, and it too is one."""
    world = World(concurrency=concurrency, schedule=schedule)
    old: list[Observed] = []
    for step, first, second in steps:
        if step == "commit":
            world.contents[first] = second
        elif step == "retry":
            world.retries[first] += 1
        elif step == "end":
            world.end(first)
        elif step == "clock":
            world.now += timedelta(seconds=int(first))
        elif step == "look at old state":  # a second controller that has not seen the last change yet
            seen = [run for run in old if run.retraining == "a"] if old else []
            world.reconcile([run for run in world.runs if run in seen or run.state != WORKING] or None)
        else:
            old = list(world.runs)
            world.reconcile()
        contents = [(run.content, run.tick) for run in world.runs if run.state in (WORKING, SUCCEEDED)]
        assert len(contents) == len(set(contents)), world.runs
        working = [run.content for run in world.runs if run.state == WORKING]
        assert len(working) == len(set(working)), world.runs
        assert all(run.tick is None for run in world.runs) or (schedule and schedule.force)
    for _ in range(3 * len(NAMES)):  # left alone, everything comes to rest
        world.reconcile()
        world.end(SUCCEEDED)
    for name in NAMES:
        ended = [run for run in world.runs if run.content == world.contents[name]]
        assert ended, "a content that is wanted was never run"
        assert any(run.state == SUCCEEDED or (run.state == FAILED and not run.canceled) for run in ended), ended
    assert What.START not in world.reconcile()


@given(steps)
def test_the_same_look_twice_decides_the_same(steps: list[tuple[str, str, str]]) -> None:
    world = World()
    for step, first, second in steps:
        if step == "commit":
            world.contents[first] = second
        elif step == "end":
            world.end(first)
        world.reconcile()
        decided = decide(world.wanted(), world.runs, world.now)
        assert decided == decide(list(reversed(world.wanted())), list(world.runs), world.now)
        assert all(one.action is not What.START for one in decided)
