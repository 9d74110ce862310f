"""Make Kaldi folders of a corpus as it is: tables, pairs of files, archives, data sets, trees, local or s3://."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING

from cosyflow.cli.prepare import configure_checks, limits_of

if TYPE_CHECKING:
    from cosyflow.corpus.importing.result import Summary

SHOWN = 5


def configure(parser: argparse.ArgumentParser) -> None:
    from cosyflow.corpus.importing.split import DEFAULT_DEV_SHARE

    parser.add_argument("src", metavar="SRC", help="folder of the corpus, or one table or archive")
    parser.add_argument("dst", metavar="DST", help="folder for train, dev, names.tsv and rejects.tsv")
    parser.add_argument("--text_column", default="", help="column of the transcript; by default a usual name is found")
    parser.add_argument(
        "--speaker_column",
        default="",
        help="column of the speaker; by default a usual name is found, else folders name it",
    )
    parser.add_argument("--audio_column", default="", help="column of the audio")
    parser.add_argument(
        "--dev_share", type=float, default=DEFAULT_DEV_SHARE, help="share of the utterances (0 to 1) for dev"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of dev")
    parser.add_argument("--dry_run", action="store_true", help="look at everything and write nothing")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one JSON document")
    configure_checks(parser)


def run(args: argparse.Namespace) -> None:
    from cosyflow.corpus.importing.run import ImportSettings, import_corpus
    from cosyflow.corpus.importing.source import Columns

    settings = ImportSettings(
        columns=Columns(args.text_column, args.speaker_column, args.audio_column),
        dev_share=args.dev_share,
        seed=args.seed,
        dry_run=args.dry_run,
        limits=limits_of(args),
    )
    with redirect_stdout(sys.stderr), _place(args):  # standard output is the result's
        summary = import_corpus(args.src, args.dst, settings)
    if args.format == "json":
        print(json.dumps(summary.as_json(), indent=2, ensure_ascii=False))
    else:
        _show(summary, args)


def _place(args: argparse.Namespace) -> AbstractContextManager[object]:
    """The folder that is written, for this process alone."""
    from cosyflow.lease import held

    return nullcontext() if args.dry_run else held(args.dst, f"import {args.dst}")


def _show(summary: Summary, args: argparse.Namespace) -> None:
    for each in summary.taken[:SHOWN]:
        print(f"{each.utt}  {each.spk}  {each.seconds:.2f} s  {each.text}")
    result = summary.as_json()
    print(f"seen      {result['seen']}")
    print(f"taken     {result['taken']}: {result['hours']} hours, {result['speakers']} speakers")
    for kind in ("rejected", "ignored"):
        counts = result[kind]
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        print(f"{kind:<9} {sum(counts.values())}{f': {reasons}' if reasons else ''}")
    print(
        "dry run: nothing was written" if args.dry_run else f"written   {args.dst}: train, dev, names.tsv, rejects.tsv"
    )
