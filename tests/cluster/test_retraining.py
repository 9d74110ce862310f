"""Retrainings on a real API server: wrong ones are refused, right ones kept by controllers that may be killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pipelines.retraining.fake_kfp import Kfp, serving
from tests.unit.pipelines.retraining.test_model import WRONG

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 120.0
Object = dict[str, Any]


def kubectl(*words: str, given: Object | None = None) -> subprocess.CompletedProcess[str]:
    text = json.dumps(given) if given is not None else None
    return subprocess.run(["kubectl", *words], input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"cosyflow-test-{uuid.uuid4().hex[:8]}"
    crd = CHECKOUT / "k8s" / "retraining" / "crd.yaml"
    assert kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd)).returncode == 0
    assert kubectl("create", "namespace", name).returncode == 0
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kfp() -> Iterator[Kfp]:
    with serving(Kfp(ends="")) as state:
        yield state


def started(kfp: Kfp, namespace: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines", "reconcile", "--host", kfp.url]
    return subprocess.Popen([*command, "--watch-namespace", namespace, "--port", "0"], cwd=CHECKOUT)


@contextmanager
def controller(kfp: Kfp, namespace: str) -> Iterator[None]:
    process = started(kfp, namespace)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM


def declared(name: str, root: Path, **spec: Any) -> Object:
    run = {"data_root": str(root), "recipe": "cosyvoice2.tiny", **spec.pop("run", {})}
    return {
        "apiVersion": "cosyflow.dev/v1alpha1",
        "kind": "Retraining",
        "metadata": {"name": name},
        "spec": {"run": run, **spec},
    }


def declare(namespace: str, one: Object) -> None:
    done = kubectl("apply", "--namespace", namespace, "--server-side", "--filename", "-", given=one)
    assert done.returncode == 0, done.stderr


def status(namespace: str, name: str) -> Object:
    done = kubectl("get", "retraining", name, "--namespace", namespace, "--output", "json")
    return dict(json.loads(done.stdout).get("status", {})) if done.returncode == 0 else {}


def condition(namespace: str, name: str, kind: str) -> Object:
    found = [one for one in status(namespace, name).get("conditions", ()) if one["type"] == kind]
    return dict(found[0]) if found else {}


def until(true: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + LIMIT_SECONDS
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.5)


def until_stalled(namespace: str, name: str) -> Object:
    until(lambda: condition(namespace, name, "Stalled").get("status") == "True", f"{name} is stalled")
    return condition(namespace, name, "Stalled")


def until_seen(namespace: str, name: str, commit: str) -> None:
    until(lambda: status(namespace, name).get("commit") == commit, f"{commit} is seen")


def test_wrong_ones_are_refused_by_the_api_server_or_by_a_condition_that_names_the_field(
    kfp: Kfp, namespace: str
) -> None:
    taken: dict[str, str] = {}
    for number, (content, field) in enumerate(WRONG):
        named = content["metadata"].get("name") == "voice"
        one = {**content, "metadata": {"name": f"wrong-{number}"}} if named else content
        if "after" in one.get("spec", {}).get("trigger", {}) and field == "spec.trigger.after":
            one = json.loads(json.dumps(one).replace('"after": "voice"', f'"after": "wrong-{number}"'))
        options = ("--server-side", "--validate=strict", "--filename", "-")
        done = kubectl("apply", "--namespace", namespace, *options, given=one)
        if done.returncode == 0:
            taken[one["metadata"]["name"]] = field
    assert len(taken) < len(WRONG) / 2, "most are refused by the schema"
    with controller(kfp, namespace):
        for name, field in taken.items():
            stalled = until_stalled(namespace, name)
            assert stalled["reason"] == "Invalid"
            assert field in stalled["message"], stalled
    assert not kfp.runs
    kubectl("delete", "retrainings", "--all", "--namespace", namespace)


def test_controllers_that_are_killed_make_one_run_for_each_content_and_tools_can_wait_for_it(
    kfp: Kfp, namespace: str, tmp_path: Path
) -> None:
    chance, contents = random.Random(20), set()
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(6):
            running = [one for one in running if one.poll() is None]
            running += [started(kfp, namespace) for _ in range(2 - len(running))]
            average = chance.choice([1, 2, 3])
            contents.add(average)
            commit = declared("voice", tmp_path, run={"average_num": average})
            commit["metadata"]["annotations"] = {"cosyflow.dev/commit": f"commit-{number}"}
            declare(namespace, commit)
            if number % 2:
                time.sleep(chance.uniform(0, 3))
                running[chance.randrange(2)].kill()
            until_seen(namespace, "voice", f"commit-{number}")
            for run in [run for run in kfp.runs if run["state"] == "RUNNING"]:
                kfp.end(run["run_id"], "SUCCEEDED")
        options = ("--namespace", namespace, f"--timeout={LIMIT_SECONDS:.0f}s")
        waited = kubectl("wait", "--for=condition=Ready", "retraining/voice", *options)
        assert waited.returncode == 0, waited.stderr
    finally:
        for one in running:
            one.kill()
            one.wait()
    known = [json.loads(run["description"].partition(" ")[2])["content"] for run in kfp.runs]
    assert len(known) == len(set(known)) == len(contents)
    told = kubectl("get", "events", "--namespace", namespace, "--output", "name").stdout
    assert "voice." in told
