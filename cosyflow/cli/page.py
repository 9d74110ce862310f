"""Make one HTML page of a run: samples to listen to, figures, losses, data, and how to go on."""

from __future__ import annotations

import argparse

from cosyflow.errors import Problem, RefusalError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a run, or DATA_ROOT/runs/RUN, local or s3://")
    parser.add_argument("--evaluation", default="", help="folder of cosyflow evaluate; by default RUN/evaluation")
    parser.add_argument("--output", default="", help="the page's file; by default page.html in RUN")
    parser.add_argument("--samples", type=int, default=6, help="texts of the evaluation that are played")


def run(args: argparse.Namespace) -> None:
    if args.samples < 0:
        raise RefusalError([Problem("--samples", f"{args.samples} is negative; give 0 or more")])
    from cosyflow.page.make import Wanted, write_page

    print(f"page: {write_page(Wanted(args.run, args.evaluation, args.samples), args.output)}")
