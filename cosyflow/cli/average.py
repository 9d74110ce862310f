"""Stage 6: average the best checkpoints of a training run."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dst_model", required=True, help="file to write")
    parser.add_argument("--src_path", required=True, help="folder of the training run")
    parser.add_argument("--num", type=int, default=5, help="how many checkpoints")
    parser.add_argument("--val_best", action="store_true", help="the best by validation loss instead of the newest")


def run(args: argparse.Namespace) -> None:
    from cosyflow import storage
    from cosyflow.lease import held
    from cosyflow.release.average import average_model

    with held(
        storage.parent(args.dst_model), f"average {args.dst_model}", name=f"average.{storage.name(args.dst_model)}"
    ):
        average_model(args.src_path, args.dst_model, args.num, args.val_best)
