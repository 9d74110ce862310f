"""Stage 5: concatenate the lists of several subsets into train.data.list and dev.data.list."""

from __future__ import annotations

import argparse

from cosyflow.config.data import CorpusConf

NONE = "none"


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
    parser.add_argument(
        "--dev_subsets", nargs="+", default=list(corpus.dev_subsets), help="subsets to validate on, or none"
    )


def run(args: argparse.Namespace) -> None:
    from cosyflow import storage
    from cosyflow.dataset.merge import DEV_LIST, merge_lists
    from cosyflow.lease import held
    from cosyflow.progress import say

    dev_subsets = [] if args.dev_subsets == [NONE] else args.dev_subsets
    named = dict.fromkeys([*args.train_subsets, *dev_subsets])
    folders = {subset: storage.join(args.src_dir, subset) for subset in named}
    present = {
        subset: storage.join(folder, args.parquet_folder)
        for subset, folder in folders.items()
        if storage.exists(folder)
    }
    with held(args.des_dir, f"merge {args.des_dir}"):
        made = merge_lists(present, args.train_subsets, dev_subsets, args.des_dir)
    counts, details = made.counts, made.details
    say(
        "merge",
        f"{counts['train_utterances']} utterances to train on, {counts['dev_utterances']} to validate on;"
        f" {details['train_speakers']} and {details['dev_speakers']} speakers, together {details['speakers']}",
    )
    if not dev_subsets:
        say("merge", f"{storage.join(args.des_dir, DEV_LIST)} is empty: a training needs another list as --cv_data")
