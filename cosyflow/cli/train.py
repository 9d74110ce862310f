"""Train a model of a recipe, or go on with an interrupted training."""

from __future__ import annotations

import argparse

from cosyflow.training.arguments import Arguments, add_arguments


def configure(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument(
        "--launcher",
        default="auto",
        choices=("auto", "local", "pytorchjob"),
        help="where processes run: here, or in a job of the cluster that KUBECONFIG names; auto: in a pod a job",
    )
    parser.add_argument("--num_nodes", type=int, default=1, help="machines")
    parser.add_argument(
        "--gpus_per_node", type=int, default=0, help="processes on each machine; 0: one for each GPU, or one without"
    )
    parser.add_argument("--job", default="", help="YAML file of settings of a pytorchjob's pods")


def run(args: argparse.Namespace) -> None:
    from cosyflow.launch.train_stage import launch

    result = launch(Arguments.of(args), args.launcher, args.num_nodes, args.gpus_per_node, args.job)
    for name, value in {**result.counts, **result.details}.items():
        print(f"{name}: {value}")
