"""List what lies below a data root and nothing refers to, and remove it when asked to."""

from __future__ import annotations

import argparse
import json
import re
import sys

from cosyflow.errors import Problem, RefusalError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_root", required=True, help="folder or s3:// prefix of the runs")
    parser.add_argument(
        "--older_than",
        default="",
        metavar="AGE",
        help="e.g. 7d, 12h: keep what is younger, and let the records of older runs keep nothing; by default every"
        " record keeps the work of its run",
    )
    parser.add_argument(
        "--mlflow_uri", default="", help="registry whose versions are kept, in addition to those known here"
    )
    parser.add_argument("--delete", action="store_true", help="remove what is listed")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one JSON document")


def run(args: argparse.Namespace) -> None:
    from cosyflow.run.garbage import find_garbage, remove

    garbage, warnings = find_garbage(args.data_root, _seconds(args.older_than), args.mlflow_uri)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if args.delete:
        there, garbage = garbage, []
        for each in there:
            if remove(each):
                garbage.append(each)
            else:
                print(f"warning: {each.uri}: somebody works there by now; it is kept", file=sys.stderr)
    if args.format == "json":
        print(json.dumps([{"uri": each.uri, "bytes": each.bytes, "reason": each.reason} for each in garbage], indent=2))
        return
    for each in garbage:
        print(f"{each.bytes / 1e6:12,.3f} MB  {each.uri}  {each.reason}")
    total = sum(each.bytes for each in garbage)
    print(f"{total / 1e6:12,.3f} MB  {'removed' if args.delete else 'would be removed by --delete'}")


def _seconds(age: str) -> float | None:
    if not age:
        return None
    match = re.fullmatch(r"(\d+)([smhdw])", age)
    if match is None:
        raise RefusalError([Problem("--older-than", f"{age} is no age; write e.g. 7d, 12h or 30m")])
    return float(int(match[1]) * SECONDS[match[2]])
