"""Stage -1: fetch a subset of LibriTTS, check it and unpack it."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    from cosyflow.corpus.download import DEFAULT_DATA_URL

    parser.add_argument("--part", "--subset", required=True, dest="subset", help="e.g. train-clean-100 or dev-clean")
    parser.add_argument("--data_url", default=DEFAULT_DATA_URL, help="http(s) address of the folder with the archives")
    parser.add_argument(
        "--output_dir",
        "--data_dir",
        required=True,
        dest="output_dir",
        help="folder or s3:// prefix; gets LibriTTS/PART",
    )
    parser.add_argument("--checksum", help="MD5 or SHA-256 of the archive; by default the published one")
    parser.add_argument("--keep_archive", action="store_true", help="leave the archive in the output folder")


def run(args: argparse.Namespace) -> None:
    from cosyflow.corpus.download import download_subset
    from cosyflow.lease import held

    with held(args.output_dir, f"download {args.subset}", name=f"download.{args.subset}"):
        download_subset(args.subset, args.data_url, args.output_dir, args.checksum, args.keep_archive)
