"""The metrics of an evaluation with their intervals, and what the gate says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

from cosyflow.evaluation.measures import METRICS
from cosyflow.evaluation.rows import CANDIDATE, ROWS
from cosyflow.page.elements import Child, element, missing, table

MOST_SPEAKERS = 50
MOST_PROBLEMS = 20
OUTCOMES = {
    "promote": "The gate lets it become the champion.",
    "refuse": "The gate refuses it.",
    "not-judged": "No judge heard it, so nothing is decided.",
}


def decision(report: Any) -> list[Element]:
    """What the gate decided, why, and what makes the figures doubtful."""
    found = report["decision"]
    outcome = str(found["outcome"])
    mark = "good" if outcome == "promote" else "bad"
    parts = [element("p", f"{outcome}: {OUTCOMES.get(outcome, '')}", class_=f"decision {mark}")]
    if found["reasons"]:
        parts.append(element("ul", *(element("li", str(reason)) for reason in found["reasons"])))
    findings = found.get("findings") or {}
    if findings:
        rows: list[list[Child]] = [[name, *_finding(finding)] for name, finding in sorted(findings.items())]
        head = ["metric", "verdict", "", "difference"]
        parts.append(element("details", element("summary", "what it found"), table(head, rows)))
    problems = [str(problem) for problem in report["problems"]]
    if problems:
        parts.append(element("p", "What makes the figures doubtful:"))
        parts.append(element("ul", *(element("li", problem) for problem in problems[:MOST_PROBLEMS])))
    if len(problems) > MOST_PROBLEMS:
        parts.append(element("p", f"And {len(problems) - MOST_PROBLEMS} more."))
    return parts


def figures(report: Any) -> list[Element]:
    """The table of metrics, by row and by speaker, and the judges."""
    rows: list[list[Child]] = [
        [name, METRICS[name].better, *(_cell(report["rows"][row].get(name, {"missing": ""})) for row in ROWS)]
        for name in METRICS
    ]
    parts = [
        table(["", "better", *ROWS], rows, class_="figures"),
        element("p", "In brackets the limits of 95 % confidence, by the bootstrap over utterances.", class_="facts"),
    ]
    reasons = {name: figure["missing"] for name, figure in report["metrics"].items() if "missing" in figure}
    parts += [missing(f"{name} is missing: {reason}") for name, reason in reasons.items()]
    speakers = (report.get("speakers") or {}).get(CANDIDATE) or {}
    if speakers:
        parts.append(_by_speaker(speakers))
    judges: list[list[Child]] = [
        [role, str(judge.get("uri") or judge.get("reason")), str(judge.get("digest", ""))[:16]]
        for role, judge in report["judges"].items()
    ]
    about = report["list"]
    parts.append(
        element(
            "details",
            element("summary", "what it was made of"),
            table(["judge", "", "digest"], judges),
            element(
                "p", f"List: {about['uri']}, {about['utterances']} utterances, digest {str(about['digest'])[:16]}."
            ),
            element("p", f"Seed {report['seed']}; texts compared after {_words(report['normalisation'])}."),
        )
    )
    return parts


def _finding(finding: Mapping[str, Any]) -> list[Child]:
    """Verdict, text, and how much worse the candidate is than the champion or the bar."""
    difference = finding.get("difference")
    return [str(finding["verdict"]), str(finding["text"]), _cell(difference) if difference else ""]


def _by_speaker(speakers: Mapping[str, Any]) -> Element:
    names = sorted(speakers)
    rows: list[list[Child]] = [
        [name, *(_cell(speakers[name].get(metric, {"missing": ""})) for metric in METRICS)]
        for name in names[:MOST_SPEAKERS]
    ]
    shown = f"by speaker ({len(names)})" if len(names) <= MOST_SPEAKERS else f"{MOST_SPEAKERS} of {len(names)} speakers"
    return element("details", element("summary", shown), table(["", *METRICS], rows, class_="figures"))


def _cell(figure: Mapping[str, Any]) -> Child:
    if "missing" in figure:
        return element("span", "missing", class_="missing", title=str(figure["missing"]))
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(each)}" for name, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
