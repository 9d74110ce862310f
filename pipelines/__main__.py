"""The orchestrator: compiles the pipeline, runs it here, or sends it to a Kubeflow Pipelines server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cosyflow.cli.parser import Parser
from cosyflow.errors import CosyFlowError

EXPERIMENTS = Path("exp")


def build_parser() -> Parser:
    from pipelines.demo import RECIPES
    from pipelines.options import add_parameters

    parser = Parser(prog="python -m pipelines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    compiled = commands.add_parser("compile", help="write the pipeline's IR YAML")
    compiled.add_argument("--output", type=Path, required=True, help="folder for the YAML files")
    compiled.add_argument("--images", type=Path, help="image lock: the name of each image, from `make images`")
    compiled.add_argument("--release", action="store_true", help="refuse images without a digest")
    compiled.add_argument(
        "--kfp-cache",
        action="store_true",
        help="let the server's cache answer for stages, unchecked; needs fixed images",
    )

    local = commands.add_parser("run", help="run the pipeline on this machine")
    local.add_argument(
        "--run-dir", type=Path, help="folder for the log and the summary; default: a new one in exp/runs"
    )
    defaults = {
        "data_root": str(EXPERIMENTS / "data"),
        "mlflow_uri": f"sqlite:///{(EXPERIMENTS / 'mlflow.db').resolve()}",
        "num_processes": os.cpu_count() or 1,
    }
    add_parameters(local, defaults)

    sent = commands.add_parser("submit", help="start a run on a Kubeflow Pipelines server")
    sent.add_argument("--host", default=os.environ.get("KFP_HOST"), help="URL of the server, or KFP_HOST")
    sent.add_argument("--namespace", default=os.environ.get("KFP_NAMESPACE"), help="or KFP_NAMESPACE")
    sent.add_argument("--token", help="bearer token; better KFP_TOKEN, which no list of processes shows")
    sent.add_argument("--kfp-experiment", default="cosyflow", help="KFP experiment of the run")
    sent.add_argument("--run-name", help="name of the run; default: the pipeline's and the time")
    sent.add_argument("--images", type=Path, help="image lock: the name of each image, from `make images`")
    add_parameters(sent)

    demo = commands.add_parser("demo", help="the whole pipeline in minutes, with stand-in models")
    demo.add_argument("--corpus", type=Path, help="a LibriTTS tree; default: a small one is spoken for the demo")
    demo.add_argument("--recipe", choices=RECIPES, default=RECIPES[0], help="which version, in a size that trains here")
    demo.add_argument("--work-dir", type=Path, default=EXPERIMENTS / "demo", help="folder for everything")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit status: 1 after a failed stage or a user's error."""
    args = build_parser().parse_args(arguments)
    try:
        return COMMANDS[args.command](args)
    except CosyFlowError as error:
        print(f"pipelines {args.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"pipelines {args.command}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def _compile(args: argparse.Namespace) -> int:
    from pipelines.compiling import compile_pipelines

    for path in compile_pipelines(args.output, args.images, args.release, args.kfp_cache):
        print(path)
    return 0


def _run(args: argparse.Namespace) -> int:
    from pipelines.options import read_parameters, with_absolute_paths
    from pipelines.running import new_run_dir, run

    return run(with_absolute_paths(read_parameters(args)), args.run_dir or new_run_dir(EXPERIMENTS / "runs"))


def _submit(args: argparse.Namespace) -> int:
    from pipelines.options import read_parameters
    from pipelines.submitting import submit

    if not args.host:
        raise CosyFlowError("no server: give --host or set KFP_HOST")
    token = args.token or os.environ.get("KFP_TOKEN")
    parameters = read_parameters(args)
    print(submit(parameters, args.host, args.namespace, token, args.kfp_experiment, args.run_name, args.images))
    return 0


def _demo(args: argparse.Namespace) -> int:
    from pipelines.demo import demo

    return demo(args.work_dir, args.corpus, args.recipe)


COMMANDS = {"compile": _compile, "run": _run, "submit": _submit, "demo": _demo}


if __name__ == "__main__":
    sys.exit(main())
