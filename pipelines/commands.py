"""The orchestrator: compiles the pipeline, runs it here, or sends it to a Kubeflow Pipelines server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosyflow.cli.ending import ending
from cosyflow.cli.parser import Parser
from cosyflow.credentials import refuse_carried
from cosyflow.errors import Problem, RefusalError
from cosyflow.run import config

if TYPE_CHECKING:
    from pipelines.retraining.server import Server

EXPERIMENTS = Path("exp")
UNKNOWN_PLACE = "s3://bucket"
"""Compiling needs no data root, which a run's file may leave out."""


def build_parser() -> Parser:
    from pipelines.demo import RECIPES
    from pipelines.options import add_settings

    parser = Parser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    compiled = commands.add_parser("compile", help="write the pipeline's IR YAML")
    compiled.add_argument("--output", type=Path, required=True, help="folder for the YAML files")
    compiled.add_argument("--images", type=Path, help="image lock: the name of each image, from `make images`")
    compiled.add_argument("--release", action="store_true", help="refuse images without a digest")
    compiled.add_argument("--run", default="", help="file of a run: its resources and subsets at once are compiled in")
    compiled.add_argument(
        "--kfp-cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the server's cache answer for stages whose work is whole",
    )

    local = commands.add_parser("run", help="run the pipeline on this machine")
    local.add_argument(
        "--run-dir", type=Path, help="folder for the log and the summary; default: a new one in exp/runs"
    )
    add_settings(local)

    sent = commands.add_parser("submit", help="start a run on a Kubeflow Pipelines server")
    _add_server(sent)
    sent.add_argument("--kfp-experiment", default="cosyflow", help="KFP experiment of the run")
    sent.add_argument("--run-name", help="name of the run; default: recipe, part and the time")
    sent.add_argument("--images", type=Path, help="image lock: the name of each image, from `make images`")
    add_settings(sent)

    add_settings(commands.add_parser("check", help="refuse a run that cannot work; nothing is written"))
    add_settings(commands.add_parser("show", help="print the whole run as YAML, which --run takes back"))
    keys = commands.add_parser("keys", help="print what names the work of each stage")
    keys.add_argument("--format", choices=("text", "json"), default="text", help="for people, or one JSON document")
    add_settings(keys)

    shown = commands.add_parser("diff", help="print what declared runs (Retraining) would start; 3: something")
    shown.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="YAML file, or folder of them")
    shown.add_argument("--state", type=Path, help="JSON of what is known of runs, instead of a server; {} is nothing")
    _add_server(shown)
    done = commands.add_parser("apply", help="start what `diff` shows, once")
    done.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="YAML file, or folder of them")
    done.add_argument("--wait", action="store_true", help="until the runs have ended; 1 when one failed")
    _add_server(done)
    for command in (shown, done):
        command.add_argument("--format", choices=("text", "json"), default="text", help="for people, or one document")

    kept = commands.add_parser("reconcile", help="the controller: start what Retrainings of a cluster want, for ever")
    _add_server(kept)
    kept.add_argument("--token-file", type=Path, help="file of a bearer token, which is read again when it changes")
    kept.add_argument("--watch-namespace", default="", help="of the Retrainings; default: its own")
    kept.add_argument("--port", type=int, default=8080, help="of /healthz and /metrics")

    demo = commands.add_parser("demo", help="the whole pipeline in minutes, with stand-in models")
    demo.add_argument("--corpus", type=Path, help="a LibriTTS tree; default: a small one is spoken for the demo")
    demo.add_argument("--recipe", choices=RECIPES, default=RECIPES[0], help="which version, in a size that trains here")
    demo.add_argument("--work-dir", type=Path, default=EXPERIMENTS / "demo", help="folder for everything")
    return parser


def _add_server(parser: Parser) -> None:
    parser.add_argument("--host", default=os.environ.get("KFP_HOST"), help="URL of the server, or KFP_HOST")
    parser.add_argument("--namespace", default=os.environ.get("KFP_NAMESPACE"), help="or KFP_NAMESPACE")
    parser.add_argument("--token", help="bearer token; better KFP_TOKEN, which no list of processes shows")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit status, as those of `cosyflow`: 1 after a failed stage, 2 for a refused run."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return ending(f"pipelines {words[0]}" if words and words[0] in COMMANDS else "pipelines", lambda: _do(words))


def _do(words: list[str]) -> int:
    args = build_parser().parse_args(words)
    return COMMANDS[args.command](args)


def _compile(args: argparse.Namespace) -> int:
    from pipelines.compiling import compile_pipelines

    run = None
    if args.run:
        run = config.from_parameters({"data_root": UNKNOWN_PLACE, **config.read_run(args.run)})
    for path in compile_pipelines(args.output, args.images, args.release, args.kfp_cache, run):
        print(path)
    return 0


def _run(args: argparse.Namespace) -> int:
    from pipelines.running import new_run_dir, run

    return run(_read_settings(args), args.run_dir or new_run_dir(EXPERIMENTS / "runs"))


def _submit(args: argparse.Namespace) -> int:
    from pipelines.options import read_settings
    from pipelines.submitting import submit

    if not args.host:
        raise RefusalError([Problem("--host", "is missing; give the address of a server, or set KFP_HOST")])
    token = args.token or os.environ.get("KFP_TOKEN")
    settings = read_settings(args)
    refuse_carried(settings)
    run = config.from_parameters(settings)
    print(submit(run, args.host, args.namespace, token, args.kfp_experiment, args.run_name, args.images))
    return 0


def _check(args: argparse.Namespace) -> int:
    from cosyflow.run.plan import check

    check(_read_settings(args))
    return 0


def _show(args: argparse.Namespace) -> int:
    from cosyflow.run.record import Record

    run = config.from_parameters(_read_settings(args))
    print(f"# digest: {Record.of(run).digest}\n{run.to_yaml()}", end="")
    return 0


def _keys(args: argparse.Namespace) -> int:
    from cosyflow.content import Digests
    from cosyflow.run.chain import describe_keys
    from cosyflow.run.record import Record

    record = Record.of(config.from_parameters(_read_settings(args)))
    described = describe_keys(record, Digests(record.digests))
    if args.format == "json":
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return 0
    for label, known in described.items():
        print(f"{label:<40} {known['key'] or 'not yet known':<16} version {known['version']}")
    return 0


def _diff(args: argparse.Namespace) -> int:
    from pipelines.retraining.commands import SOMETHING_TO_DO, diff, has_something, show

    actions = diff(args.paths, args.state, _server(args) if args.host else None)
    if args.format == "json":
        print(json.dumps([action.to_json() for action in actions], indent=2, ensure_ascii=False))
    else:
        print(show(actions), end="")
    return SOMETHING_TO_DO if has_something(actions) else 0


def _apply(args: argparse.Namespace) -> int:
    from pipelines.retraining.commands import apply, show
    from pipelines.retraining.decision import FAILED

    actions, runs = apply(args.paths, _server(args), args.wait)
    if args.format == "json":
        done = {"actions": [action.to_json() for action in actions], "runs": runs}
        print(json.dumps(done, indent=2, ensure_ascii=False))
    else:
        print(show(actions), *(f"run {run}: {state}\n" for run, state in runs.items()), sep="", end="")
    return 1 if args.wait and FAILED in runs.values() else 0


def _reconcile(args: argparse.Namespace) -> int:
    from pipelines.retraining.cluster import Cluster
    from pipelines.retraining.reconciling import reconcile
    from pipelines.retraining.server import Server

    known = _server(args)
    token = args.token_file or known.token
    reconcile(
        Cluster.connected(args.watch_namespace),
        lambda namespace: Server(known.host, namespace or known.namespace, token),
        args.port,
    )
    return 0


def _server(args: argparse.Namespace) -> Server:
    from pipelines.retraining.server import Server

    if not args.host:
        raise RefusalError([Problem("--host", "is missing; give the address of a server, or set KFP_HOST")])
    return Server(args.host, args.namespace, args.token or os.environ.get("KFP_TOKEN"))


def _demo(args: argparse.Namespace) -> int:
    from pipelines.demo import demo

    return demo(args.work_dir, args.corpus, args.recipe)


def _read_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run on this machine, whose places are those of this folder; a server has its own."""
    from pipelines.options import read_settings

    return config.with_absolute_places(read_settings(args, {"data_root": str(EXPERIMENTS / "data")}))


COMMANDS = {
    "compile": _compile,
    "run": _run,
    "submit": _submit,
    "check": _check,
    "show": _show,
    "keys": _keys,
    "diff": _diff,
    "apply": _apply,
    "reconcile": _reconcile,
    "demo": _demo,
}
