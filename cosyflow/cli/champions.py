"""The champion of a registered name on the command line: compare, promote, rollback."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

REFUSED_BY_GATE = 3
"""Exit status when the gate does not let a version become the champion."""


def configure_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", type=int, help="a version")
    parser.add_argument("second", metavar="B", type=int, help="another version")


def configure_promote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", metavar="VERSION", nargs="?", type=int, help="by default the newest")
    parser.add_argument(
        "--report", default="", help="report.json of its evaluation; by default the one that the version names"
    )


def compare(args: argparse.Namespace) -> None:
    from cosyflow.evaluation.promotion import compare as compared

    found = compared(args.mlflow_uri, args.name, args.first, args.second)
    if args.format == "json":
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    width = max(map(len, found["metrics"]))
    for metric, pair in found["metrics"].items():
        line = f"{metric.ljust(width)}  {_figure(pair[0]).ljust(26)}  {_figure(pair[1]).ljust(26)}"
        change = found["differences"].get(metric)
        print(f"{line}  {_change(change)}".rstrip() if change else line.rstrip())


def promote(args: argparse.Namespace) -> int:
    from cosyflow.evaluation.promotion import promote as promoted

    found = promoted(args.mlflow_uri, args.name, args.version, args.report)
    if args.format == "json":
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        state = "is the champion" if found.is_champion else f"does not become the champion ({found.decision.outcome})"
        print(f"{found.name} version {found.version} {state}", *found.decision.reasons, sep="\n  ")
    return 0 if found.is_champion else REFUSED_BY_GATE


def rollback(args: argparse.Namespace) -> None:
    from cosyflow.evaluation.promotion import rollback as rolled_back

    former, now = rolled_back(args.mlflow_uri, args.name)
    if args.format == "json":
        print(json.dumps({"name": args.name, "version": now, "former": former}))
    else:
        print(f"{args.name} version {now} is the champion again, in the place of version {former}")


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None or "missing" in figure:
        return "missing"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def _change(change: Mapping[str, Any]) -> str:
    return f"{change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"
