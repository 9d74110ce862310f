"""Make small stand-ins for the official pretrained models."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="folder to fill; new, empty, or with earlier stand-ins")
    parser.add_argument("--seed", type=int, default=0, help="of the random projections and weights")


def run(args: argparse.Namespace) -> None:
    from cosyflow.standins.models import make_stand_ins

    for name in make_stand_ins(args.directory, args.seed):
        print(args.directory / name)
