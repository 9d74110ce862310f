"""Write small real judges of speech into a folder, for evaluate."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIRECTORY", help="folder or s3:// prefix for the judges")


def run(args: argparse.Namespace) -> None:
    from cosyflow.evaluation.judges.packaged import write_packaged_judges
    from cosyflow.progress import say

    names = write_packaged_judges(args.directory)
    say("judges", f"{', '.join(names)} in {args.directory}")
