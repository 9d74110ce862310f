"""The status as tools read it: one of three conditions holds, whatever was found, and an event tells what changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipelines.retraining.decision import FAILED, SUCCEEDED, WORKING, Observed, Wanted, decide
from pipelines.retraining.health import Health
from pipelines.retraining.health import serving as answering
from pipelines.retraining.model import Spec
from pipelines.retraining.schema import STATUS
from pipelines.retraining.status import (
    DATA_UNREACHABLE,
    INVALID,
    SERVER_REFUSES,
    SERVER_UNREACHABLE,
    Found,
    Kind,
    Trouble,
    counting,
    event_of,
    status_of,
)  # fmt: skip

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEMA = jsonschema.Draft7Validator(STATUS)
TROUBLES = (None, INVALID, SERVER_UNREACHABLE, SERVER_REFUSES, DATA_UNREACHABLE)


def spec(**values: Any) -> Spec:
    return Spec.model_validate({"run": {"data_root": "s3://bucket/data"}, **values})


def run(content: str, state: str, number: int, retraining: str = "voice") -> Observed:
    started = NOW - timedelta(minutes=100 - number)
    finished = None if state == WORKING else started + timedelta(minutes=1)
    return Observed(f"run-{number}", retraining, content, 0, state, started, finished)


def found(content: str, runs: list[Observed], trouble: str | None = None, generation: int = 1, **values: Any) -> Found:
    wanted = spec(**values)
    if trouble == INVALID:
        return Found(generation, trouble=Trouble(INVALID, "spec.retry: is negative"))
    if trouble:
        return Found(generation, wanted, content, trouble=Trouble(trouble, "no answer"))
    (action,) = decide([Wanted("voice", wanted, content)], runs, NOW)
    return Found(generation, wanted, content, action=action, runs=runs, url="http://ui/#/runs")


looks = some.lists(
    some.tuples(
        some.sampled_from(["c1", "c2"]),
        some.lists(
            some.tuples(some.sampled_from(["c0", "c1", "c2"]), some.sampled_from([WORKING, SUCCEEDED, FAILED])),
            max_size=3,
        ),
        some.sampled_from(TROUBLES),
        some.sampled_from(["accepted", "finished", "promoted"]),
        some.booleans(),
    ),
    max_size=6,
)


@pytest.mark.medium
@given(looks)
def test_one_of_three_conditions_holds_and_the_schema_takes_it(looks: list[Any]) -> None:
    status: dict[str, Any] = {}
    for number, (content, runs, trouble, healthy, suspend) in enumerate(looks, start=1):
        observed = [run(name, state, index) for index, (name, state) in enumerate(runs)]
        seen = found(content, observed, trouble, number, healthyWhen=healthy, suspend=suspend)
        before, status = status, status_of(seen, status, NOW + timedelta(minutes=number))
        SCHEMA.validate(status)
        conditions = {one["type"]: one for one in status["conditions"]}
        assert sum(conditions[kind]["status"] == "True" for kind in Kind) == 1
        assert status["observedGeneration"] == number
        for one in conditions.values():
            old = next((each for each in before.get("conditions", ()) if each["type"] == one["type"]), None)
            same = old is not None and old["status"] == one["status"]
            assert (one["lastTransitionTime"] == (old or {}).get("lastTransitionTime")) or not same
        again = status_of(seen, status, NOW + timedelta(minutes=number, seconds=30))
        assert again == status, "a look that finds nothing new writes nothing"
        assert event_of(again, status) is None


@pytest.mark.parametrize(
    ("state", "healthy", "ready"),
    [
        (WORKING, "accepted", True),
        (WORKING, "finished", False),
        (SUCCEEDED, "finished", True),
        (FAILED, "accepted", False),
    ],
)
def test_ready_is_what_healthy_when_asks_for(state: str, healthy: str, ready: bool) -> None:
    status = status_of(found("c1", [run("c1", state, 1)], healthyWhen=healthy), {}, NOW)
    assert status["conditions"][0]["status"] == str(ready)


def test_a_duplicate_that_ended_counts_for_nothing() -> None:
    runs = [run("c1", SUCCEEDED, 1), run("c1", FAILED, 2)]
    assert counting(runs, "c1") == runs[0]
    assert counting([*runs, run("c1", WORKING, 3)], "c1").id == "run-3"  # type: ignore[union-attr]


def test_the_history_has_the_newest_runs_up_to_its_limit() -> None:
    runs = [run(f"c{number}", SUCCEEDED, number) for number in range(5)]
    status = status_of(found("c4", runs, historyLimit=2), {}, NOW)
    assert [one["id"] for one in status["runs"]] == ["run-4", "run-3"]


def test_health_and_metrics_are_answered() -> None:
    import urllib.error
    import urllib.request

    health = Health()
    health.looked(7)
    with answering(health, 0) as port:
        address = f"http://127.0.0.1:{port}"
        assert urllib.request.urlopen(f"{address}/healthz", timeout=10).status == 200
        assert "cosyflow_retraining_retrainings 7" in urllib.request.urlopen(f"{address}/metrics").read().decode()
        health.values["leads"] = 1
        health._looked -= 10_000
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{address}/healthz", timeout=10)
