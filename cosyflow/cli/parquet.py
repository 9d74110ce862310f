"""Stage 3: write audio, text, embeddings and speech tokens into parquet shards."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE

    parser.add_argument("--src_dir", required=True, help="folder with wav.scp, text, utt2spk and perhaps instruct")
    parser.add_argument("--des_dir", required=True, help="folder of the shards and lists")
    parser.add_argument("--config", help="recipe: rejects audio that does not belong to its speech tokens")
    parser.add_argument(
        "--f0",
        choices=("none", "harvest", "fast"),
        default="none",
        help="add a column pitch_feat for training the vocoder: by harvest as the released ones, fast by DIO",
    )
    parser.add_argument("--num_utts_per_parquet", type=int, default=1000, help="utterances of a shard")
    parser.add_argument("--num_processes", type=int, default=1, help="shards written at the same time")
    parser.add_argument(
        "--dpo", action="store_true", help="add the tokens of <src_dir>_reject/utt2speech_token.pt as rejected speech"
    )
    parser.add_argument(
        "--embedding_dir", help="folder with utt2embedding.pt and spk2embedding.pt; src_dir when they are there"
    )
    parser.add_argument("--token_dir", help="folder with utt2speech_token.pt; src_dir when it is there")
    parser.add_argument(
        "--max_reject_share",
        type=float,
        default=DEFAULT_MAX_REJECT_SHARE,
        help="fail when more than this share cannot be used",
    )


def run(args: argparse.Namespace) -> None:
    from cosyflow.config.load import load_config
    from cosyflow.dataset.alignment import Alignment
    from cosyflow.dataset.parquet import make_parquet
    from cosyflow.dataset.tables import UTT2EMBEDDING, UTT2SPEECH_TOKEN
    from cosyflow.lease import held
    from cosyflow.progress import say

    with held(args.des_dir, f"parquet {args.des_dir}"):
        result = make_parquet(
            kaldi_dir=args.src_dir,
            embedding_dir=args.embedding_dir or _source_with(args.src_dir, UTT2EMBEDDING),
            token_dir=args.token_dir or _source_with(args.src_dir, UTT2SPEECH_TOKEN),
            output_dir=args.des_dir,
            num_utts_per_parquet=args.num_utts_per_parquet,
            num_processes=args.num_processes,
            reject_token_dir=f"{args.src_dir.rstrip('/')}_reject" if args.dpo else None,
            max_reject_share=args.max_reject_share,
            alignment=Alignment.of(load_config(args.config)) if args.config else None,
            f0=args.f0,
        )
    counts = result.counts
    say("parquet", f"{counts['outputs']} utterances in {counts['shards']} shards, {counts['rejects']} rejected")


def _source_with(directory: str, name: str) -> str | None:
    """The folder itself when it has the file, else None: the official tools leave such columns out, and so do we."""
    from cosyflow import storage
    from cosyflow.progress import say

    if storage.exists(storage.join(directory, name)):
        return directory
    say("parquet", f"{storage.join(directory, name)} does not exist: its columns are left out")
    return None
