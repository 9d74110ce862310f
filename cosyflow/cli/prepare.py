"""Stage 0: make checked Kaldi files of a LibriTTS subset or of a Kaldi folder of your own."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    from cosyflow.corpus.libritts import READ_THREADS
    from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE

    parser.add_argument("--src_dir", required=True, help="a subset's tree (SPEAKER/CHAPTER/*.wav) or Kaldi folder")
    parser.add_argument(
        "--des_dir", "--output_dir", required=True, dest="des_dir", help="folder for the Kaldi files and rejects.tsv"
    )
    parser.add_argument("--instruct", help="instruction that every utterance gets")
    parser.add_argument(
        "--max_reject_share",
        type=float,
        default=DEFAULT_MAX_REJECT_SHARE,
        help="fail when a larger share (0 to 1) of the utterances cannot be used",
    )
    parser.add_argument("--num_threads", type=int, default=READ_THREADS, help="files read at the same time")


def run(args: argparse.Namespace) -> None:
    from cosyflow.corpus.prepare import prepare
    from cosyflow.lease import held

    with held(args.des_dir, f"prepare {args.des_dir}"):
        prepare(args.src_dir, args.des_dir, args.instruct, args.max_reject_share, args.num_threads)
