"""The champion of a registered name: moved by the gate alone, moved back by rollback, and always with the reasons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.gate import Decision, decide
from cosyflow.evaluation.report import gate_of, pairs_of, read_report
from cosyflow.evaluation.rows import CANDIDATE, CHAMPION
from cosyflow.evaluation.statistics import difference
from cosyflow.mlflow_server import connect
from cosyflow.release.history import LONGEST_TAG
from cosyflow.release.registry import Version, read_version, read_versions, registry_address, registry_errors

REPORT_TAG = "evaluation"
"""Address of the version's report."""
OUTCOME_TAG, DECISION_TAG = "gate", "gate_decision"
"""What the gate said in a word, and as JSON with its numbers."""
BEFORE_TAG = "champion_before"
"""Of a champion: the version that it took the place of, "" for none."""
ROLLED_BACK = "rolled-back"
DECISION = "decision.json"
WEIGHTS = (".pt", ".onnx", ".safetensors")


@dataclass(frozen=True)
class Promotion:
    """What became of a version. `before` is the champion that it was compared with."""

    name: str
    version: int
    before: int | None
    decision: Decision

    @property
    def is_champion(self) -> bool:
        return self.decision.outcome == "promote"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def promote(mlflow_uri: str, name: str, number: int | None, report_uri: str = "") -> Promotion:
    """Makes a version the champion if the gate allows it. What the gate says is written to the version first.

    Args:
        number: of the version; None is the newest.
        report_uri: the version's report; by default the one that its tag `evaluation` names.

    Raises:
        CosyFlowError: the registry does not answer, or there is no such version or report. Then nothing is promoted.
    """
    version = read_version(mlflow_uri, name, number)
    champion = find_champion(mlflow_uri, name)
    uri = report_uri or version.tags.get(REPORT_TAG, "")
    if not uri:
        raise CosyFlowError(f"{name} version {version.version}: it was not evaluated; name its report with --report")
    report = read_report(uri)
    decision = _decide(report, uri, version, champion)
    promotion = Promotion(name, version.version, champion.version if champion else None, decision)
    _record(mlflow_uri, version, uri, promotion)
    if promotion.is_champion and promotion.before != version.version:
        _move(mlflow_uri, promotion)
    return promotion


def rollback(mlflow_uri: str, name: str) -> tuple[int, int]:
    """Makes the version before the champion the champion again. Returns the numbers of the two, the former first.

    Raises:
        CosyFlowError: there is no champion, or none before it, or that one is gone.
    """
    champion = find_champion(mlflow_uri, name)
    if champion is None:
        raise CosyFlowError(f"{name}: no version is the {CHAMPION}, so there is nothing to go back from")
    before = champion.tags.get(BEFORE_TAG, "")
    if not before:
        raise CosyFlowError(f"{name}: no version was the {CHAMPION} before version {champion.version}")
    target = read_version(mlflow_uri, name, int(before))
    address = registry_address(mlflow_uri)
    with registry_errors(address):
        client = connect(address, MAX_RETRIES=3)
        client.set_registered_model_alias(name, CHAMPION, str(target.version))
        client.set_model_version_tag(name, str(champion.version), OUTCOME_TAG, ROLLED_BACK)
    return champion.version, target.version


def compare(mlflow_uri: str, name: str, first: int, second: int) -> dict[str, Any]:
    """The metrics of two versions: `metrics` by name a pair, and `differences` where the same list was heard alike.

    Raises:
        CosyFlowError: one of them is not there, or was not evaluated.
    """
    reports = [_report_of(read_version(mlflow_uri, name, number)) for number in (first, second)]
    names = reports[0]["metrics"]
    return {
        "metrics": {metric: [report["metrics"].get(metric) for report in reports] for metric in names},
        "differences": _differences(*reports) if _identity(reports[0]) == _identity(reports[1]) else {},
    }


def find_champion(mlflow_uri: str, name: str) -> Version | None:
    """The version that the alias `champion` points to."""
    return next((each for each in read_versions(mlflow_uri, name) if CHAMPION in each.aliases), None)


def _decide(report: Any, uri: str, version: Version, champion: Version | None) -> Decision:
    if champion is not None and champion.version == version.version:
        return Decision("promote", [f"version {version.version} is the {CHAMPION} already"])
    doubts = [f"{uri}: {text}" for text in [_other_weights(report, CANDIDATE, version)] if text]
    against = None
    if champion is not None:
        against = pairs_of(report, CHAMPION)
        if against is None:
            doubts.append(
                f"{uri}: it does not compare with version {champion.version}, which is the {CHAMPION}; evaluate again"
                " with --champion"
            )
        elif text := _other_weights(report, CHAMPION, champion):
            doubts.append(f"{uri}: {text}")
    candidate = pairs_of(report, CANDIDATE)
    if candidate is None:
        raise CosyFlowError(f"{uri}: not a report of cosyflow evaluate; evaluate again")
    return decide(gate_of(report), candidate, against, [*report["problems"], *doubts])


def _other_weights(report: Any, row: str, version: Version) -> str | None:
    """Why a row is not of a version; None when all weights that spoke are among the version's, or it is one of them."""
    spoke = {
        digest: name for name, digest in report["models"].get(row, {"files": {}})["files"].items() if _is_weights(name)
    }
    if storage.is_folder(version.source):
        registered = set(Digests().tree(version.source).values())
        other = [name for digest, name in spoke.items() if digest not in registered]
    else:
        other = [] if Digests().file(version.source) in spoke else [storage.name(version.source)]
    if not spoke or other:
        return f"its {row} has other weights ({', '.join(other) or 'none'}) than version {version.version}"
    return None


def _is_weights(name: str) -> bool:
    return name.endswith(WEIGHTS)


def _record(mlflow_uri: str, version: Version, report_uri: str, promotion: Promotion) -> None:
    """Writes the decision to the version's tags, next to the report, and to the version's run."""
    found = promotion.to_json()
    text = json.dumps(found["decision"], sort_keys=True)
    tags = {REPORT_TAG: _absolute(report_uri), OUTCOME_TAG: promotion.decision.outcome, DECISION_TAG: text}
    storage.write_json(storage.join(storage.parent(report_uri), DECISION), found)
    address = registry_address(mlflow_uri)
    with registry_errors(address):
        client = connect(address, MAX_RETRIES=3)
        for tag, value in tags.items():
            client.set_model_version_tag(version.name, str(version.version), tag, value[: LONGEST_TAG // 4])
        run_id = client.get_model_version(version.name, str(version.version)).run_id
        if run_id:
            _attach(client, run_id, f"evaluation/{version.name}-{version.version}.json", found)


def _attach(client: Any, run_id: str, name: str, value: Mapping[str, Any]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.log_dict(run_id, dict(value), name)
    except MlflowException:
        raise
    except Exception as error:  # stores of artifacts raise their own
        raise CosyFlowError(f"{name}: the run's artifacts cannot be written ({error}); nothing is promoted") from error


def _move(mlflow_uri: str, promotion: Promotion) -> None:
    address, name, number = registry_address(mlflow_uri), promotion.name, str(promotion.version)
    with registry_errors(address):
        client = connect(address, MAX_RETRIES=3)
        before = "" if promotion.before is None else str(promotion.before)
        client.set_model_version_tag(name, number, BEFORE_TAG, before)
        now = client.get_registered_model(name).aliases.get(CHAMPION, "")
        if str(now) != before:
            raise CosyFlowError(f"{name}: version {now or 'none'} has become the {CHAMPION} meanwhile; evaluate again")
        client.set_registered_model_alias(name, CHAMPION, number)


def _report_of(version: Version) -> Any:
    uri = version.tags.get(REPORT_TAG, "")
    if not uri:
        raise CosyFlowError(
            f"{version.name} version {version.version}: it was not evaluated; cosyflow models promote --report"
        )
    return read_report(uri)


def _identity(report: Any) -> Any:
    """What two reports must have in common to be compared utterance by utterance."""
    return report["list"]["digest"], report["judges"], report["normalisation"]


def _differences(first: Any, second: Any) -> dict[str, Any]:
    one, other = pairs_of(first, CANDIDATE), pairs_of(second, CANDIDATE)
    assert one is not None  # noqa: S101 - every report has a candidate
    assert other is not None  # noqa: S101
    found = {}
    for name, pairs in one.items():
        others = other[name]
        if isinstance(pairs, dict) and isinstance(others, dict):
            found[name] = asdict(difference(others, pairs))
    return found


def _absolute(uri: str) -> str:
    return uri if storage.is_remote(uri) else str(Path(storage.join(uri)).absolute())
