"""Stage 5: concatenate the lists of several subsets into train.data.list and dev.data.list."""

from __future__ import annotations

import argparse

from cosyflow.config.data import CorpusConf


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--src_dir", required=True, help="folder with one folder of parquet shards a subset")
    parser.add_argument(
        "--parquet_folder",
        default="parquet",
        help="folder below a subset's that has data.list ('' for the subset's own)",
    )
    parser.add_argument("--des_dir", required=True, help="folder of the two lists")
    corpus = CorpusConf()
    parser.add_argument("--train_subsets", nargs="+", default=list(corpus.train_subsets), help="subsets to train on")
    parser.add_argument("--dev_subsets", nargs="+", default=list(corpus.dev_subsets), help="subsets to validate on")


def run(args: argparse.Namespace) -> None:
    from cosyflow import storage
    from cosyflow.dataset.merge import merge_lists
    from cosyflow.lease import held
    from cosyflow.progress import say

    named = dict.fromkeys([*args.train_subsets, *args.dev_subsets])
    folders = {subset: storage.join(args.src_dir, subset) for subset in named}
    present = {
        subset: storage.join(folder, args.parquet_folder)
        for subset, folder in folders.items()
        if storage.exists(folder)
    }
    with held(args.des_dir, f"merge {args.des_dir}"):
        counts = merge_lists(present, args.train_subsets, args.dev_subsets, args.des_dir).counts
    say("merge", f"{counts['train_utterances']} utterances to train on, {counts['dev_utterances']} to validate on")
