"""`diff` and `apply` against a server that pages, refuses, is away, and accepts a request whose answer is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.commands import main
from pipelines.retraining import commands
from tests.unit.pipelines.retraining.fake_kfp import LOST, Kfp, serving


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kfp]:
    monkeypatch.setattr(commands, "POLL_SECONDS", 0.01)
    with serving(Kfp()) as state:
        yield state


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    path = tmp_path / "git" / "voice.yaml"
    declare(path)
    return path


def declare(path: Path, name: str = "voice", **spec: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"data_root": "s3://bucket/data", "recipe": "cosyvoice2.tiny", **spec.pop("run", {})}
    content = {
        "apiVersion": "cosyflow.dev/v1alpha1",
        "kind": "Retraining",
        "metadata": {"name": name},
        "spec": {"run": run, **spec},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def command(name: str, path: Path, kfp: Kfp, *options: str) -> int:
    return main([name, str(path), "--host", kfp.url, "--format", "json", *options])


@pytest.mark.medium
def test_a_content_is_started_once_and_a_change_once_more(kfp: Kfp, declared: Path) -> None:
    assert command("diff", declared, kfp) == 3
    assert command("apply", declared, kfp) == 0
    assert command("apply", declared, kfp) == 0
    assert command("diff", declared, kfp) == 0
    assert len(kfp.runs) == 1
    kfp.runs[0]["state"] = "SUCCEEDED"
    declare(declared, run={"average_num": 2})
    for _ in range(2):
        assert command("apply", declared, kfp) == 0
    assert len(kfp.runs) == 2
    assert "average_num: 2" in kfp.runs[1]["runtime_config"]["parameters"]["run"]
    assert len(kfp.versions) == 1  # both have the same graph


@pytest.mark.medium
def test_a_lost_answer_a_server_that_is_away_and_pages_make_no_second_run(
    kfp: Kfp, declared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: None)
    kfp.runs += [
        {"run_id": f"old-{number}", "display_name": "other", "description": "", "state": "SUCCEEDED",
         "created_at": "2026-02-01T00:00:00Z"}
        for number in range(3)
    ]  # fmt: skip
    kfp.faults, kfp.away = [LOST], 2
    assert command("apply", declared, kfp) == 0
    assert command("apply", declared, kfp) == 0
    assert [run["run_id"] for run in kfp.runs[3:]] == ["run-4"]


@pytest.mark.medium
def test_a_refusal_is_told_with_its_status(kfp: Kfp, declared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kfp.faults = [403]
    assert command("apply", declared, kfp) == 1
    assert "status 403" in capsys.readouterr().err
    assert not kfp.runs


@pytest.mark.medium
def test_waiting_ends_as_the_run_does_and_starts_what_had_to_wait(kfp: Kfp, declared: Path) -> None:
    declare(declared.parent / "then.yaml", "then", run={"average_num": 3}, trigger={"after": "voice"})
    assert command("apply", declared.parent, kfp, "--wait") == 0
    assert [run["display_name"].split()[0] for run in kfp.runs] == ["voice", "then"]
    kfp.ends = "FAILED"
    declare(declared, run={"average_num": 4})
    assert command("apply", declared, kfp, "--wait") == 1
    assert command("apply", declared, kfp, "--wait") == 0  # it failed, and nobody asked for a repetition
    declare(declared, run={"average_num": 4}, retry=1)
    assert command("apply", declared, kfp, "--wait") == 1
    assert [run["display_name"][-2:] for run in kfp.runs] == ["r0", "r0", "r0", "r1"]


@pytest.mark.medium
def test_a_replaced_run_is_ended_first(kfp: Kfp, declared: Path) -> None:
    declare(declared, concurrency="Replace")
    command("apply", declared, kfp)
    declare(declared, concurrency="Replace", run={"average_num": 2})
    assert command("diff", declared, kfp) == 3
    command("apply", declared, kfp)
    assert kfp.ended == ["run-1"]
    assert len(kfp.runs) == 2


@pytest.mark.medium
@pytest.mark.parametrize("ended_by_itself", [False, True])
def test_a_replaced_run_is_ended_once_although_the_server_goes_away_between(
    ended_by_itself: bool, kfp: Kfp, declared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: None)
    kfp.ends = ""
    declare(declared, concurrency="Replace")
    command("apply", declared, kfp)
    declare(declared, concurrency="Replace", run={"average_num": 2})
    kfp.faults = [503]
    kfp.ends_unseen = ended_by_itself
    assert command("apply", declared, kfp) == 0
    assert kfp.ended == ([] if ended_by_itself else ["run-1"])
    assert [run["run_id"] for run in kfp.runs] == ["run-1", "run-2"]


@pytest.mark.medium
def test_a_state_in_a_file_needs_no_server(declared: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text("{}", encoding="utf-8")
    options = ["diff", str(declared), "--state", str(state), "--format", "json"]
    assert main(options) == 3
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["retraining"], told["action"]) == ("voice", "start")
    known = {"id": "r-1", "retraining": "voice", "hash": told["hash"], "state": "succeeded"}
    state.write_text(json.dumps({"runs": [known]}), encoding="utf-8")
    assert main(options) == 0
    state.write_text(json.dumps({"runs": [{**known, "state": "green"}]}), encoding="utf-8")
    assert main(options) == 2
    assert "green" in capsys.readouterr().err


@pytest.mark.medium
def test_a_changed_recording_is_new_content(kfp: Kfp, declared: Path, tmp_path: Path) -> None:
    data = tmp_path / "speech" / "train"
    data.mkdir(parents=True)
    (data / "a.wav").write_bytes(b"0" * 100)
    declare(declared, run={"data_url": str(data.parent)})
    command("apply", declared, kfp)
    kfp.runs[0]["state"] = "SUCCEEDED"
    assert command("diff", declared, kfp) == 0
    (data / "a.wav").write_bytes(b"1" * 100)
    assert command("diff", declared, kfp) == 3
