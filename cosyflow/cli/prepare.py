"""Stage 0: make checked Kaldi files of a LibriTTS subset or of a Kaldi folder of your own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosyflow.audio.fitness import Limits


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
    parser.add_argument(
        "--allow_pipes",
        action="store_true",
        help="run the commands of a wav.scp: sox, flac, ffmpeg or sph2pipe with one file",
    )
    configure_checks(parser)


def configure_checks(parser: argparse.ArgumentParser) -> None:
    """Options about what recordings may be like."""
    from cosyflow.audio.fitness import Limits

    usual = Limits()
    parser.add_argument(
        "--check_audio",
        choices=("full", "header"),
        default="full",
        help="full: decode every recording and reject what is silent, clipped, too quiet or off centre",
    )
    parser.add_argument(
        "--min_level", type=float, default=usual.min_level, help="dB of full scale that the loud parts need"
    )
    parser.add_argument(
        "--max_clipped", type=float, default=usual.max_clipped, help="share of samples (0 to 1) on flat tops"
    )
    parser.add_argument("--max_dc", type=float, default=usual.max_dc, help="mean of the samples; full scale is 1")
    parser.add_argument(
        "--max_cancelled",
        type=float,
        default=usual.max_cancelled,
        help="dB that the mix of the channels may be quieter than they are",
    )


def limits_of(args: argparse.Namespace) -> Limits | None:
    """What those options say; None for headers only."""
    from cosyflow.audio.fitness import Limits

    if args.check_audio == "header":
        return None
    return Limits(args.min_level, args.max_cancelled, args.max_clipped, args.max_dc)


def run(args: argparse.Namespace) -> None:
    from cosyflow.corpus.prepare import prepare
    from cosyflow.lease import held

    with held(args.des_dir, f"prepare {args.des_dir}"):
        prepare(
            args.src_dir,
            args.des_dir,
            args.instruct,
            args.max_reject_share,
            args.num_threads,
            limits_of(args),
            args.allow_pipes,
        )
