"""The clock of a schedule: each tick comes once at most, whatever happens to the time of day or to who looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as some

from pipelines.retraining.clock import GRACE, Clock, look
from pipelines.retraining.model import Schedule

HOURLY = Schedule(cron="0 * * * *", time_zone="Europe/Berlin")
NOON = datetime(2026, 3, 28, 12, 30, tzinfo=UTC)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def test_a_clock_that_begins_has_no_tick_behind_it_and_the_next_one_comes() -> None:
    begun = look(HOURLY, Clock(), NOON)
    assert (begun.tick, begun.next_tick) == (None, NOON + hours(0.5))
    assert look(HOURLY, begun, NOON + hours(0.4)) == begun
    came = look(HOURLY, begun, NOON + hours(0.5))
    assert (came.tick, came.next_tick) == (NOON + hours(0.5), NOON + hours(1.5))


def test_a_tick_that_nobody_saw_is_gone_unless_it_was_just_now() -> None:
    begun = look(HOURLY, Clock(), NOON)
    assert look(HOURLY, begun, NOON + hours(5.5) + GRACE).tick == NOON + hours(5.5)  # one, not five
    missed = look(HOURLY, begun, NOON + hours(5.5) + GRACE + timedelta(seconds=1))
    assert (missed.tick, missed.next_tick) == (None, NOON + hours(6.5))


def test_a_schedule_that_changes_begins_anew_and_one_that_goes_takes_its_clock_with_it() -> None:
    came = look(HOURLY, look(HOURLY, Clock(), NOON), NOON + hours(0.5))
    daily = look(Schedule(cron="0 3 * * *"), came, NOON + hours(0.5))
    assert (daily.tick, daily.next_tick) == (None, datetime(2026, 3, 29, 3, tzinfo=UTC))
    assert look(None, came, NOON) == Clock()


def test_a_time_of_day_is_that_of_the_zone_also_when_its_clocks_change() -> None:
    nightly = Schedule(cron="30 3 * * *", time_zone="Europe/Berlin")
    before = look(nightly, Clock(), datetime(2026, 3, 28, 0, tzinfo=UTC))
    after = look(nightly, Clock(), datetime(2026, 3, 29, 0, tzinfo=UTC))
    assert [clock.next_tick for clock in (before, after)] == [
        datetime(2026, 3, 28, 2, 30, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    ]


@given(some.lists(some.integers(-5 * 3600, 5 * 3600), max_size=30), some.booleans())
def test_ticks_are_those_of_the_schedule_and_never_of_long_ago(jumps: list[int], forgets: bool) -> None:
    """The time of day goes on and jumps, and who looks is replaced by one that knows the status, or nothing."""
    now, clock = NOON, Clock()
    for number, jump in enumerate(jumps):
        now += timedelta(seconds=jump)
        seen = look(HOURLY, Clock() if forgets and number % 7 == 6 else clock, now)
        assert seen.next_tick is not None
        assert now < seen.next_tick <= now + hours(1)
        if seen.tick != clock.tick and seen.tick is not None:
            assert seen.tick.minute == seen.tick.second == 0
            assert timedelta(0) <= now - seen.tick <= GRACE
        assert look(HOURLY, seen, now) == seen
        clock = seen
