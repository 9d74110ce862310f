"""Show registered models, their history and their metrics, and say which version is the champion."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cosyflow.cli import champions
from cosyflow.errors import CosyFlowError

if TYPE_CHECKING:
    from cosyflow.release.registry import Version
    from cosyflow.stage import Manifest

SHORT = 12


def configure(parser: argparse.ArgumentParser) -> None:
    names = "list, lineage, diff, compare, promote or rollback"
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", help=names)
    listing = actions.add_parser("list", help="the versions of a name, newest first")
    lineage = actions.add_parser("lineage", help="what a version was made of, back to the archives")
    diff = actions.add_parser("diff", help="what differs between two versions")
    compare = actions.add_parser("compare", help="the metrics of two versions side by side")
    promote = actions.add_parser("promote", help="make a version the champion, if the gate allows it")
    rollback = actions.add_parser("rollback", help="make the version before the champion the champion again")
    for action in (listing, lineage, diff, compare, promote, rollback):
        action.add_argument("name", metavar="NAME", help="a registered model, e.g. cosyvoice2-llm")
        action.add_argument(
            "--mlflow_uri", default="", help="MLflow server or sqlite:///FILE; by default MLFLOW_TRACKING_URI"
        )
        action.add_argument("--format", choices=("text", "json"), default="text", help="json: one JSON document")
    lineage.add_argument("version", metavar="VERSION", nargs="?", type=int, help="by default the newest")
    lineage.add_argument(
        "--verify", action="store_true", help="read every file and list what differs or is gone; then the status is 1"
    )
    diff.add_argument("first", metavar="A", type=int, help="a version")
    diff.add_argument("second", metavar="B", type=int, help="another version")
    champions.configure_compare(compare)
    champions.configure_promote(promote)


def run(args: argparse.Namespace) -> int | None:
    actions: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "list": _list,
        "lineage": _lineage,
        "diff": _diff,
        "compare": champions.compare,
        "promote": champions.promote,
        "rollback": champions.rollback,
    }
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> None:
    from cosyflow.release.registry import read_versions

    versions = read_versions(args.mlflow_uri, args.name)
    if args.format == "json":
        _print_json([_row(version) for version in versions])
        return
    head = ("version", "alias", "commit", "data", "registered")
    table = [head]
    for version in versions:
        row = _row(version)
        commit, data = _short(row["git_commit"]), _short(row["data_digest"])
        table.append((str(row["version"]), ", ".join(row["aliases"]) or "-", commit, data, row["registered"]))
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _row(version: Version) -> dict[str, Any]:
    known = {name: version.tags.get(name) for name in ("git_commit", "data_digest", "parent_version")}
    parent = known.pop("parent_version")
    return {
        "name": version.name,
        "version": version.version,
        "aliases": version.aliases,
        **known,
        "parent_version": int(parent) if parent else None,
        "registered": version.registered,
    }


def _lineage(args: argparse.Namespace) -> None:
    from cosyflow.release.lineage import chain_of, link, replacements, verify
    from cosyflow.release.registry import read_version

    version = read_version(args.mlflow_uri, args.name, args.version)
    chain = chain_of(version)
    if args.format == "json":
        _print_json([link(manifest) for manifest in chain])
    else:
        _print_chain(version, chain)
    problems = verify(version, chain) if args.verify else list(replacements(chain))
    if not problems:
        if args.verify and args.format == "text":
            print(f"All files of {len(chain)} links are as they were made.")
        return
    if args.format == "text":
        print(*problems, sep="\n")
    count = "1 difference" if len(problems) == 1 else f"{len(problems)} differences"
    found = "; ".join(problems) if args.format == "json" else f"{count} in its history, listed above"
    raise CosyFlowError(f"{args.name} version {version.version}: {found}")


def _print_chain(version: Version, chain: Sequence[Manifest]) -> None:
    from cosyflow.release.lineage import depths, origin

    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    print(f"{version.name} version {version.version}{aliases}, registered {version.registered}")
    indents = ["  " * depth for depth in depths(chain)]
    labels = [f"{indent}{manifest.stage} {manifest.name}" for indent, manifest in zip(indents, chain, strict=True)]
    width = max(map(len, labels))
    for indent, label, manifest in zip(indents, labels, chain, strict=True):
        print(f"{label.ljust(width)}  {manifest.digest[:SHORT]}  {manifest.uri}")
        for line in origin(manifest):
            print(f"{indent}    {line}")


def _diff(args: argparse.Namespace) -> None:
    from cosyflow.release.differences import differences
    from cosyflow.release.lineage import chain_of
    from cosyflow.release.registry import read_version

    versions = [read_version(args.mlflow_uri, args.name, number) for number in (args.first, args.second)]
    found = differences(*(chain_of(version) for version in versions))
    if args.format == "json":
        _print_json(found)
        return
    for kind, pairs in found.items():
        print(f"{kind}: {'as before' if not pairs else ''}".rstrip())
        _print_pairs(pairs)


def _print_pairs(pairs: Mapping[str, Any], prefix: str = "") -> None:
    for key, pair in pairs.items():
        if isinstance(pair, Mapping):
            _print_pairs(pair, f"{prefix}{key} ")
        else:
            print(f"  {prefix}{key}: {_shown(pair[0])} -> {_shown(pair[1])}")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return _short(value) if len(value) in (40, 64) and set(value) <= set("0123456789abcdef") else value
    return json.dumps(value, ensure_ascii=False)


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else "-"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
