"""The report of an evaluation: figures with their intervals, and all that a later comparison needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cosyflow import storage
from cosyflow.config.gate import GateConf, Rule
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.gate import Decision
from cosyflow.evaluation.judges.named import Judges, Missing
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.measures import METRICS, Pairs
from cosyflow.evaluation.rows import CANDIDATE, CHAMPION, ROWS, Row
from cosyflow.evaluation.speaking import Model
from cosyflow.evaluation.statistics import interval
from cosyflow.evaluation.words import normalisation

REPORT = "report.json"
FORMAT = 1


@dataclass(frozen=True)
class Subject:
    """What a report is about."""

    list_uri: str
    list_digest: str
    seed: int
    language: str
    judges: Judges
    models: Mapping[str, Model]
    """The candidate, and the champion where there is one, by row."""
    absent: Mapping[str, str]
    """Why rows are not there."""
    problems: Sequence[str]
    gate: GateConf


def build_report(subject: Subject, entries: Sequence[Entry], rows: Mapping[str, Row], decision: Decision) -> Any:
    """The report as JSON values: see docs/evaluation.md."""
    figures = {name: _figures(rows[name].pairs) if name in rows else _absent(subject, name) for name in ROWS}
    return {
        "format": FORMAT,
        "metrics": figures[CANDIDATE],
        "rows": figures,
        "speakers": {name: _by_speaker(row.pairs, entries) for name, row in rows.items()},
        "decision": decision.to_json(),
        "problems": list(subject.problems),
        "list": {"uri": subject.list_uri, "digest": subject.list_digest, "utterances": len(entries)},
        "seed": subject.seed,
        "normalisation": normalisation(subject.language),
        "judges": {role: asdict(judge) for role, judge in subject.judges.items()},
        "models": {
            name: {"uri": model.uri, "digest": model.digest, "files": model.files}
            for name, model in subject.models.items()
        },
        "gate": asdict(subject.gate),
        "utterances": {name: _utterances(row, entries) for name, row in rows.items()},
    }


def read_report(uri: str) -> Any:
    """Reads a report. Raises CosyFlowError when there is none, or it is not one that this version can read."""
    if not storage.exists(uri):
        raise CosyFlowError(f"{uri}: no such report; cosyflow evaluate writes one")
    report = storage.read_json(uri)
    if not isinstance(report, dict) or report.get("format") != FORMAT or "utterances" not in report:
        raise CosyFlowError(f"{uri}: not a report of cosyflow evaluate; evaluate again")
    return report


def pairs_of(report: Any, row: str) -> Pairs | None:
    """The measurements of a row of a report; None when it has no such row."""
    utterances = report["utterances"].get(row)
    if utterances is None:
        return None
    found: Pairs = {}
    for name, figure in report["rows"][row].items():
        if "missing" in figure:
            found[name] = Missing(figure["missing"])
        else:
            found[name] = {utt: tuple(values["measured"][name]) for utt, values in utterances.items()}
    return found


def gate_of(report: Any) -> GateConf:
    """The rules that a report was made with."""
    values: Any = {name: Rule(**value) if isinstance(value, dict) else value for name, value in report["gate"].items()}
    return GateConf(**values)


def table(report: Any) -> list[str]:
    """The figures as lines of text: a metric a line, a row a column."""
    head = ["", *ROWS]
    lines = [head]
    for name in METRICS:
        lines.append([name, *(_cell(report["rows"][row][name]) for row in ROWS)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    missing = {f"{name}: {figure['missing']}" for name, figure in report["metrics"].items() if "missing" in figure}
    return [*shown, *(f"missing: {text}" for text in sorted(missing))]


def _cell(figure: Mapping[str, Any]) -> str:
    if "missing" in figure:
        return "missing"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _figures(pairs: Pairs) -> dict[str, Any]:
    return {name: _figure(found) for name, found in pairs.items()}


def _figure(found: Any) -> dict[str, Any]:
    if isinstance(found, Missing):
        return {"missing": found.reason}
    return asdict(interval(list(found.values())))


def _absent(subject: Subject, row: str) -> dict[str, Any]:
    reason = subject.absent.get(row) or ("no champion was given" if row == CHAMPION else "it was not asked for")
    return {name: {"missing": reason} for name in METRICS}


def _by_speaker(pairs: Pairs, entries: Sequence[Entry]) -> dict[str, Any]:
    speakers: dict[str, list[str]] = {}
    for entry in entries:
        speakers.setdefault(entry.speaker, []).append(entry.utt)
    return {
        speaker: {
            name: _figure(found if isinstance(found, Missing) else {utt: found[utt] for utt in utts})
            for name, found in pairs.items()
        }
        for speaker, utts in speakers.items()
    }


def _utterances(row: Row, entries: Sequence[Entry]) -> dict[str, Any]:
    found = {}
    for number, (entry, facts) in enumerate(zip(entries, row.facts, strict=True)):
        measured = {name: each[entry.utt] for name, each in row.pairs.items() if not isinstance(each, Missing)}
        heard = row.transcript(number)
        found[entry.utt] = {
            "wav": row.wavs[number],
            "said": facts.said,
            **({} if heard is None else {"heard": heard}),
            "seconds": facts.seconds,
            "failure": facts.failure,
            "measured": {name: list(pair) for name, pair in measured.items()},
        }
    return found
