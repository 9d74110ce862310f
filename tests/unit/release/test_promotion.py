"""The champion moves when the gate says so, and at no other time; the reasons stand in the registry."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cosyflow.cli import main
from cosyflow.config.gate import GateConf
from cosyflow.content import Digests
from cosyflow.evaluation.measures import METRICS
from cosyflow.release.register import register_models
from cosyflow.standins.server import serve

pytestmark = pytest.mark.medium
NAME = "cosyvoice2"
UTTS = [f"u{number}" for number in range(20)]
GOOD = {
    "wer": 0.08,
    "cer": 0.03,
    "similarity": 0.85,
    "dnsmos": 3.1,
    "quality": 4.0,
    "duration_ratio": 1.0,
    "failures": 0.0,
    "rtf": 0.4,
}


def row(**values: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and utterances of a row; None is a missing metric."""
    known = {name: value for name, value in (GOOD | values).items() if value is not None}
    figures = {
        name: {"value": known[name], "low": known[name], "high": known[name], "n": 20}
        if name in known
        else {"missing": "no judge"}
        for name in METRICS
    }
    utterance = {"measured": {name: [value, 1.0] for name, value in known.items()}}
    return figures, dict.fromkeys(UTTS, utterance)


class Versions:
    """Versions of whole models, and reports about them."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder, self.registry = folder, registry
        self.client = MlflowClient(registry, registry)

    def add(self, number: int) -> Path:
        """Registers a model directory; returns it."""
        place = self.folder / f"model{number}"
        place.mkdir()
        for part in ("llm.pt", "flow.pt", "hift.pt"):
            (place / part).write_text(f"{part} of {number}")
        register_models({NAME: str(place)}, str(self.folder / f"registered{number}"), self.registry, {})
        return place

    def report(
        self, number: int, champion: int | None = None, other: dict[str, float] | None = None, **values: Any
    ) -> str:
        """A report about a version, compared with a champion that has `other` values."""
        rows = {"candidate": (number, row(**values))}
        if champion is not None:
            rows["champion"] = (champion, row(**(other or {})))
        report = {
            "format": 1,
            "metrics": rows["candidate"][1][0],
            "rows": {name: found[0] for name, (_, found) in rows.items()},
            "utterances": {name: found[1] for name, (_, found) in rows.items()},
            "models": {
                name: {"files": Digests().tree(str(self.folder / f"model{which}"))} for name, (which, _) in rows.items()
            },
            "problems": [],
            "gate": asdict(GateConf()),
            "list": {"digest": "a list"},
            "judges": {},
            "normalisation": {},
        }
        path = self.folder / f"reports{number}" / "report.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(report))
        return str(path)

    @property
    def champion(self) -> int | None:
        found = self.client.get_registered_model(NAME).aliases.get("champion")
        return int(found) if found else None

    def tags(self, number: int) -> dict[str, str]:
        return dict(self.client.get_model_version(NAME, str(number)).tags)

    def run(self, *words: str) -> int:
        return main(["models", *words, "--mlflow_uri", self.registry])

    def promote(self, number: int, report: str = "") -> int:
        return self.run("promote", NAME, str(number), *(["--report", report] if report else []))


@pytest.fixture
def versions(tmp_path: Path, registry: str) -> Versions:
    """Version 1 is the champion, version 2 is new."""
    found = Versions(tmp_path, registry)
    found.add(1)
    found.add(2)
    assert found.promote(1, found.report(1)) == 0
    assert found.champion == 1
    return found


def test_a_better_version_becomes_the_champion_and_rollback_takes_it_back(
    versions: Versions, capsys: pytest.CaptureFixture[str]
) -> None:
    assert versions.promote(2, versions.report(2, champion=1, other={"wer": 0.2})) == 0
    assert versions.champion == 2
    tags = versions.tags(2)
    assert (tags["gate"], tags["champion_before"]) == ("promote", "1")
    finding = json.loads(tags["gate_decision"])["findings"]["wer"]
    assert finding["verdict"] == "better"
    assert finding["difference"]["value"] == pytest.approx(-0.12)
    assert versions.promote(2) == 0, "the report is known by now"
    assert versions.run("rollback", NAME) == 0
    assert versions.champion == 1
    assert versions.tags(2)["gate"] == "rolled-back"
    capsys.readouterr()
    assert versions.run("rollback", NAME) == 1
    assert "no version was the champion before version 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"wer": 0.15}, "wer: worse than the champion's by"),
        ({}, "no metric is better"),
        ({"wer": 0.01, "quality": None}, "quality: the candidate's is missing: no judge"),
    ],
)
def test_a_refused_version_changes_nothing_but_its_tags(
    versions: Versions, values: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = versions.report(2, champion=1, **values)
    capsys.readouterr()
    assert versions.promote(2, report) == 3
    assert reason in capsys.readouterr().out
    assert versions.champion == 1
    assert versions.tags(2)["gate"] == "refuse"
    assert json.loads((Path(report).parent / "decision.json").read_text())["decision"]["outcome"] == "refuse"


def test_a_report_of_something_else_promotes_nothing(versions: Versions, capsys: pytest.CaptureFixture[str]) -> None:
    """Of other weights, without the champion, or with another one."""
    versions.add(3)
    for reason, make in (
        ("its candidate has other weights", lambda: versions.report(3, champion=1, wer=0.01)),
        ("it does not compare with version 1", lambda: versions.report(2, wer=0.01)),
        ("its champion has other weights", lambda: versions.report(2, champion=3, wer=0.01)),
    ):
        capsys.readouterr()
        assert versions.promote(2, make()) == 3
        assert reason in capsys.readouterr().out
        assert versions.champion == 1


def test_a_version_that_was_not_evaluated(versions: Versions, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert versions.promote(2) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "version 2: it was not evaluated" in line
    (versions.folder / "list.json").write_text("[]")
    assert versions.promote(2, str(versions.folder / "list.json")) == 1
    assert "not a report of cosyflow evaluate" in capsys.readouterr().err
    assert versions.champion == 1


def test_compare_shows_metrics_side_by_side(versions: Versions, capsys: pytest.CaptureFixture[str]) -> None:
    versions.promote(2, versions.report(2, champion=1, wer=0.15))
    capsys.readouterr()
    assert versions.run("compare", NAME, "1", "2", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [figure["value"] for figure in found["metrics"]["wer"]] == [0.08, 0.15]
    assert found["differences"]["wer"]["value"] == pytest.approx(0.07)
    assert versions.run("compare", NAME, "1", "2") == 0
    assert "+0.070" in capsys.readouterr().out


@pytest.fixture
def gone(tmp_path: Path) -> str:
    """The address of a registry that is not there any more."""
    (tmp_path / "empty").mkdir()
    with serve(tmp_path / "empty") as url:
        return url


def test_a_registry_that_went_away_promotes_nothing(
    versions: Versions, gone: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    report = versions.report(2, champion=1, wer=0.01)
    capsys.readouterr()
    assert main(["models", "promote", NAME, "2", "--report", report, "--mlflow_uri", gone]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "the model registry does not answer" in line
    assert versions.champion == 1
