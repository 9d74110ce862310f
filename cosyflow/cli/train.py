"""Train a model of a recipe, or go on with an interrupted training."""

from __future__ import annotations

import argparse

from cosyflow.config.options import LaunchOptions, add_options, option_values
from cosyflow.training.arguments import Arguments, add_arguments


def configure(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    add_options(parser, LaunchOptions)


def run(args: argparse.Namespace) -> None:
    from cosyflow.launch.train_stage import launch

    result = launch(Arguments.of(args), LaunchOptions(**option_values(args, LaunchOptions)))
    for name, value in {**result.counts, **result.details}.items():
        print(f"{name}: {value}")
