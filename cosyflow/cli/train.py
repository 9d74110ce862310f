"""Train a model of a recipe, or go on with an interrupted training."""

from __future__ import annotations

import argparse

from cosyflow.training.arguments import Arguments, add_arguments


def configure(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument("--launcher", default="local", choices=("local", "pytorchjob"), help="where processes run")
    parser.add_argument("--num_nodes", type=int, default=1, help="machines")
    parser.add_argument(
        "--gpus_per_node", type=int, default=0, help="processes on each machine; 0: one for each GPU, or one without"
    )


def run(args: argparse.Namespace) -> None:
    from cosyflow.launch.train_stage import launch

    result = launch(Arguments.of(args), args.launcher, args.num_nodes, args.gpus_per_node)
    for name, value in {**result.counts, **result.details}.items():
        print(f"{name}: {value}")
