"""The controller against a server of runs over HTTP: one run for each content, whatever goes wrong, and a status that
says so."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.run import ends
from cosyflow.run.ends import End
from cosyflow.stage import Manifest
from pipelines.retraining import api, controller
from pipelines.retraining.controller import Controller
from pipelines.retraining.health import Health
from pipelines.retraining.server import Server
from tests.unit.pipelines.retraining.fake_cluster import FakeCluster
from tests.unit.pipelines.retraining.fake_kfp import LOST, PAGE, SLOW, Kfp, serving

pytestmark = pytest.mark.medium
SUBSETS = {"train_subsets": ["train-clean-100"], "dev_subsets": ["dev-clean"], "test_subsets": ["none"]}
HOURLY: dict[str, Any] = {"cron": "0 * * * *", "timeZone": "Europe/Berlin"}


def manifest(stage: str, name: str, **details: Any) -> Manifest:
    return Manifest(stage, name, "key", "uri", "digest", {}, {}, {}, {}, [], details, 1.0, False)


class World:
    """A cluster, a server of runs, and a controller that may be killed and replaced at any moment."""

    def __init__(self, kfp: Kfp, root: Path) -> None:
        self.kfp, self.cluster, self.root = kfp, FakeCluster(), root
        self.now = datetime(2026, 3, 1, 12, 10, tzinfo=UTC)
        kfp.now = lambda: self.now
        self.restart()

    def restart(self) -> None:
        self.health = Health()
        self.controller = Controller(
            self.cluster,  # type: ignore[arg-type]
            lambda namespace: Server(self.kfp.url, namespace, self.kfp.token or None),
            self.health,
            now=lambda: self.now,
        )

    def declare(self, name: str = "voice", **spec: Any) -> None:
        run = {"data_root": str(self.root / "data"), **spec.pop("run", {})}
        self.cluster.declare(name, run=run, **spec)

    def look(self, minutes: float = 0) -> None:
        self.now += timedelta(minutes=minutes)
        self.controller.look()

    def ready(self, name: str = "voice") -> tuple[str, str]:
        return self.cluster.condition("Ready", name)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with serving(Kfp(ends="")) as kfp:
        yield World(kfp, tmp_path)


def test_a_commit_runs_once_and_the_status_follows_it(world: World) -> None:
    world.declare(commit="abc123")
    world.look()
    (run,) = world.kfp.runs
    assert '"commit": "abc123"' in run["description"]
    status = world.cluster.status()
    assert status["commit"] == "abc123"
    assert status["observedGeneration"] == 1
    assert (status["run"]["id"], status["run"]["state"], status["run"]["stage"]) == ("run-1", "working", "0/10 plan")
    assert status["run"]["url"] == f"{world.kfp.url}/#/runs/details/run-1"
    assert world.ready() == ("False", "Running")
    assert world.cluster.condition("Reconciling") == ("True", "Running")
    world.kfp.end("run-1", "SUCCEEDED")
    world.look()
    assert world.ready() == ("True", "Succeeded")
    assert world.cluster.status()["lastSucceededContentHash"] == status["contentHash"]
    for _ in range(3):
        world.restart()
        world.look()
    assert len(world.kfp.runs) == 1
    assert [event.reason for _, event in world.cluster.events] == ["Running", "Succeeded"]


def test_a_failed_run_is_told_and_repeated_only_when_retry_is_raised(world: World) -> None:
    world.declare()
    world.look()
    world.kfp.end("run-1", "FAILED", "no node has a GPU")
    world.look()
    assert world.cluster.condition("Stalled") == ("True", "RunFailed")
    assert "no node has a GPU" in world.cluster.status()["run"]["reason"]
    world.look()
    assert "no node has a GPU" in world.cluster.status()["conditions"][2]["message"]
    world.declare(retry=1)
    world.look()
    assert world.cluster.status()["run"]["id"] == "run-2"
    assert world.cluster.condition("Stalled") == ("False", "Running")
    kinds = [(event.kind, event.reason) for _, event in world.cluster.events]
    assert kinds == [("Normal", "Running"), ("Warning", "RunFailed"), ("Normal", "Running")]


def test_the_stage_the_losses_and_the_versions_are_those_that_the_run_left(world: World) -> None:
    world.declare(run=SUBSETS)
    world.look()
    root = str(world.root / "data")
    ends.leave_plan(root, [], "s3://record", "run-1")
    for stage in ("download", "prepare", "speaker-embedding", "speech-token", "parquet"):
        for subset in ("train-clean-100", "dev-clean"):
            ends.leave(root, End.of(manifest(stage, subset)), "run-1")
    world.look()
    assert world.cluster.status()["run"]["stage"] == "6/10 merge"
    ends.leave(root, End("merge", "lists", "failed", 1.0, "the disk is full"), "run-1")
    world.kfp.end("run-1", "FAILED")
    world.look()
    assert world.cluster.status()["run"]["stage"] == "6/10 merge"
    assert world.cluster.status()["run"]["reason"] == "merge lists: the disk is full"
    world.declare(run=SUBSETS, retry=1)
    world.look()
    ends.leave_plan(root, [], "s3://record", "run-2")
    losses = {"train_loss_first": 4.0, "train_loss_last": 3.0}
    ends.leave(root, End.of(manifest("train", "cosyvoice2.tiny-llm", **losses)), "run-2")
    versions = {"cosyvoice2.tiny-llm": 3}
    ends.leave(root, End.of(manifest("register", "cosyvoice2.tiny-llm", versions=versions)), "run-2")
    world.kfp.end("run-2", "SUCCEEDED")
    for _ in range(2):
        world.look()
    status = world.cluster.status()
    assert status["registered"] == ["cosyvoice2.tiny-llm version 3"]
    assert status["run"]["losses"] == ["Training loss 4.000 in the first epoch, 3.000 in the last (-25%)"]
    assert "reason" not in status["run"]


def test_a_server_that_is_away_loses_nothing_and_the_condition_says_so(world: World) -> None:
    world.declare()
    world.kfp.away = 1000
    world.look()
    assert world.cluster.condition("Reconciling") == ("True", "ServerUnreachable")
    assert world.cluster.condition("ServerReachable") == ("False", "ServerUnreachable")
    world.kfp.away = 0
    world.look()
    assert len(world.kfp.runs) == 1
    world.kfp.end("run-1", "SUCCEEDED")
    world.look()
    world.kfp.away = 1000
    world.look()  # what was seen to be done stays done
    assert world.ready() == ("True", "Succeeded")
    assert world.cluster.condition("ServerReachable") == ("False", "ServerUnreachable")
    assert world.cluster.status()["run"]["id"] == "run-1"


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_server_that_refuses_is_asked_again_and_the_condition_says_why(world: World, status: int) -> None:
    world.declare()
    world.kfp.refuses = status
    world.look()
    assert world.cluster.condition("Stalled") == ("True", "ServerRefuses")
    assert f"status {status}" in world.cluster.status()["conditions"][2]["message"]
    world.kfp.refuses = 0
    world.look()
    assert len(world.kfp.runs) == 1
    assert world.ready() == ("False", "Running")


@pytest.mark.parametrize("fault", [LOST, SLOW, 409, 500, 503])
def test_a_request_that_fails_or_whose_answer_is_lost_makes_one_run(
    world: World, fault: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "READ_SECONDS", 0.2)
    world.declare()
    world.kfp.faults = [fault]
    for _ in range(3):
        world.look()
    assert len(world.kfp.runs) == 1


def test_the_token_of_a_file_is_read_again(world: World, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n", encoding="utf-8")
    world.kfp.token = "new"  # noqa: S105
    server = Server(world.kfp.url, None, token)
    with pytest.raises(CosyFlowError, match="status 401"):
        server.runs()
    token.write_text("new\n", encoding="utf-8")
    assert server.runs() == []


def test_two_controllers_and_two_alike_make_one_run(world: World) -> None:
    world.declare("a")
    world.declare("b")
    other = World(world.kfp, world.root)
    other.cluster = world.cluster
    other.restart()
    for _ in range(2):
        world.look()
        other.look()
    assert len(world.kfp.runs) == 1
    world.kfp.end("run-1", "SUCCEEDED")
    other.look()
    assert world.ready("a") == world.ready("b") == ("True", "Succeeded")


def test_a_run_that_the_server_has_removed_is_remembered(world: World) -> None:
    world.declare()
    world.look()
    world.kfp.end("run-1", "SUCCEEDED")
    world.look()
    world.kfp.runs.clear()
    world.restart()
    world.look()
    assert not world.kfp.runs
    assert world.ready() == ("True", "Succeeded")


def test_pages_of_runs_are_all_read(world: World) -> None:
    for number in range(5):
        world.declare(f"voice-{number}", run={"average_num": number + 2})
    world.look()
    assert len(world.kfp.runs) == 5
    world.restart()
    world.look()
    assert len(world.kfp.runs) == 5


def test_ticks_look_and_start_only_what_is_new_and_a_forced_one_runs_again(world: World) -> None:
    world.declare("calm", trigger={"onChange": False, "schedule": HOURLY})
    world.declare("eager", run={"average_num": 3}, trigger={"schedule": {**HOURLY, "force": True}})
    world.look()
    assert world.ready("calm") == ("True", "NotTriggered")
    assert [run["display_name"].split()[0] for run in world.kfp.runs] == ["eager"]
    world.kfp.end("run-1", "SUCCEEDED")
    world.look(50)  # 13:00, as the clocks of Berlin have 14:00
    assert [run["display_name"].split()[0] for run in world.kfp.runs] == ["eager", "calm", "eager"]
    assert world.kfp.runs[2]["display_name"].endswith("r0 2026-03-01T13:00Z")
    for run in ("run-2", "run-3"):
        world.kfp.end(run, "SUCCEEDED")
    for _ in range(3):
        world.restart()
        world.look(2)
    assert len(world.kfp.runs) == 3
    world.look(5 * 60 + 14)  # nobody looked for five hours, and now it is 18:20
    assert len(world.kfp.runs) == 3
    world.look(40)
    assert world.kfp.runs[3]["display_name"].endswith("r0 2026-03-01T19:00Z")
    world.look(60)  # the tick of 20:00 comes while that run works
    world.kfp.end("run-4", "SUCCEEDED")
    world.look(1)
    assert len(world.kfp.runs) == 4


def test_a_clock_that_is_put_back_makes_no_tick_come_twice(world: World) -> None:
    world.declare(trigger={"schedule": {**HOURLY, "force": True}})
    world.look()
    world.kfp.end("run-1", "SUCCEEDED")
    world.look(50)
    world.kfp.end("run-2", "SUCCEEDED")
    for minutes in (1, -30, 29, 1, 1):
        world.look(minutes)
    assert len(world.kfp.runs) == 2


def test_new_data_start_a_run_when_they_are_quiet_and_only_where_they_are_asked_for(world: World) -> None:
    speech = world.root / "speech" / "train"
    speech.mkdir(parents=True)
    (speech / "a.wav").write_bytes(b"0" * 100)
    run = {"data_url": str(speech.parent)}
    world.declare("deaf", run=run)
    world.declare("keen", run={**run, "average_num": 3}, trigger={"onNewData": {"quietSeconds": 600}})
    world.look()
    for number in ("run-1", "run-2"):
        world.kfp.end(number, "SUCCEEDED")
    world.look(2)
    (speech / "b.wav").write_bytes(b"1" * 100)
    world.look(2)
    assert world.cluster.condition("Reconciling", "keen") == ("True", "Waiting")
    world.look(9)
    assert len(world.kfp.runs) == 2
    world.look(2)
    assert [run["display_name"].split()[0] for run in world.kfp.runs] == ["deaf", "keen", "keen"]
    assert world.ready("deaf") == ("True", "Succeeded")


def test_data_that_cannot_be_looked_at_when_a_tick_or_a_commit_comes_are_looked_at_later(world: World) -> None:
    speech, elsewhere = world.root / "speech", world.root / "elsewhere"
    (speech / "train").mkdir(parents=True)
    (speech / "train" / "a.wav").write_bytes(b"0" * 100)
    run = {"data_url": str(speech)}
    world.declare(run=run, trigger={"schedule": HOURLY})
    world.look()
    world.kfp.end("run-1", "SUCCEEDED")
    world.look(45)
    speech.rename(elsewhere)
    (elsewhere / "train" / "b.wav").write_bytes(b"1" * 100)
    world.look(5)  # the tick
    assert world.ready() == ("True", "Succeeded")
    world.restart()
    world.look(30)
    elsewhere.rename(speech)
    world.look(1)
    assert len(world.kfp.runs) == 2
    world.kfp.end("run-2", "SUCCEEDED")
    speech.rename(elsewhere)
    (elsewhere / "train" / "c.wav").write_bytes(b"2" * 100)
    world.declare(run={**run, "average_num": 3}, trigger={"schedule": HOURLY})
    world.look(1)
    assert world.cluster.condition("Reconciling") == ("True", "DataUnreachable")
    elsewhere.rename(speech)
    world.look(1)
    assert len(world.kfp.runs) == 3
    assert world.cluster.status()["data"]["generation"] == 2
    assert world.ready() == ("False", "Running")


def test_an_idle_look_costs_one_request_for_a_page_of_runs(world: World) -> None:
    for number in range(4):
        world.declare(f"voice-{number}", run={"average_num": number + 2})
    world.look()
    for number in range(4):
        world.kfp.end(f"run-{number + 1}", "SUCCEEDED")
    world.look()
    before = world.kfp.requests
    world.look(1)
    assert world.kfp.requests - before == 4 / PAGE


def test_it_looks_again_by_itself_after_outages_and_at_once_after_a_commit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "FIRST_PAUSE", 0.01)
    ended = threading.Event()
    world.kfp.away = 3
    world.declare()
    thread = threading.Thread(target=world.controller.run, args=(ended,))
    thread.start()
    try:
        wait_for(lambda: len(world.kfp.runs) == 1)
        world.kfp.end("run-1", "SUCCEEDED")
        world.declare(run={"average_num": 3})
        wait_for(lambda: len(world.kfp.runs) == 2)
    finally:
        ended.set()
        world.controller.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert world.health.values["failures"] >= 3


def wait_for(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_wrong_one_is_refused_by_a_condition_and_the_others_go_on(world: World) -> None:
    world.declare("wrong", run={"num_workers": -1})
    world.declare("right")
    world.look()
    assert world.cluster.condition("Stalled", "wrong") == ("True", "Invalid")
    assert "spec.run.num_workers" in world.cluster.status("wrong")["conditions"][2]["message"]
    assert len(world.kfp.runs) == 1


def test_accepted_is_ready_while_it_runs_and_suspended_starts_nothing(world: World) -> None:
    world.declare("quick", healthyWhen="accepted")
    world.declare("still", run={"average_num": 3}, suspend=True)
    world.look()
    assert world.ready("quick") == ("True", "Running")
    assert world.ready("still") == ("True", "Suspended")
    world.kfp.end("run-1", "FAILED")
    world.look()
    assert world.cluster.condition("Stalled", "quick") == ("True", "RunFailed")


def test_the_commit_that_flux_applies_is_that_of_its_kustomization(world: World) -> None:
    world.declare()
    group = "kustomize.toolkit.fluxcd.io"
    world.cluster.items["voice"]["metadata"]["labels"] = {f"{group}/name": "runs", f"{group}/namespace": "flux"}
    world.cluster.revisions["flux", "runs"] = "0a1b2c"
    world.look()
    assert world.cluster.status()["commit"] == "0a1b2c"
    assert '"commit": "0a1b2c"' in world.kfp.runs[0]["description"]


def test_newer_content_replaces_a_run(world: World) -> None:
    world.declare(concurrency="Replace")
    world.look()
    world.declare(concurrency="Replace", run={"average_num": 3})
    world.look()
    assert world.kfp.ended == ["run-1"]
    assert world.cluster.status()["run"]["id"] == "run-2"
    world.declare(concurrency="Replace")  # the commit is reverted
    for _ in range(2):
        world.look()
    assert world.kfp.ended == ["run-1", "run-2"]
    assert [run["display_name"].split()[2] for run in world.kfp.runs] == ["r0", "r0", "r0.1"]
    assert world.cluster.status()["run"]["id"] == "run-3"


def test_a_leader_that_was_replaced_starts_and_writes_nothing(world: World) -> None:
    world.declare()
    world.controller = Controller(
        world.cluster,  # type: ignore[arg-type]
        lambda namespace: Server(world.kfp.url),
        Health(),
        leads=lambda: False,
    )
    world.look()
    assert not world.kfp.runs
    assert "status" not in world.cluster.items["voice"]


@pytest.mark.slow
def test_of_fifty_commits_each_content_runs_once_whatever_happens_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty change nothing; requests fail or lose their answers, servers are away, controllers are replaced."""
    monkeypatch.setattr(api, "READ_SECONDS", 0.2)
    chance = random.Random(50)
    contents = [*range(2, 32), *chance.choices(range(2, 32), k=20)]
    chance.shuffle(contents)
    for number, average in enumerate(contents):
        world.declare(run={"average_num": average}, commit=f"commit-{number}", concurrency="Allow")
        world.kfp.faults = chance.choice([[], [], [LOST], [SLOW], [500], [503, LOST]])
        world.kfp.away = chance.choice([0, 0, 0, 2])
        for _ in range(4):
            if chance.random() < 0.3:
                world.restart()
            world.look(1)
        assert world.cluster.condition("ServerReachable")[0] == "True"
        for run in world.kfp.runs:
            if run["state"] == "RUNNING" and chance.random() < 0.5:
                world.kfp.end(run["run_id"], "SUCCEEDED")
    known = [json.loads(run["description"].partition(" ")[2])["content"] for run in world.kfp.runs]
    assert len(known) == len(set(known)) == 30


def test_an_api_server_that_is_away_is_an_outage(world: World) -> None:
    world.cluster.away = True
    with pytest.raises(OutageError):
        world.look()
