"""Stage 1: extract a speaker embedding of each utterance and each speaker."""

from __future__ import annotations

import argparse
from pathlib import Path

from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE
from cosyflow.extract.device import AUTO, DEVICES


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", required=True, help="folder with wav.scp and the other Kaldi files")
    parser.add_argument("--onnx_path", required=True, help="the speaker-embedding model, campplus.onnx")
    parser.add_argument("--output_dir", help="where the outputs go instead of --dir")
    parser.add_argument("--num_thread", type=int, default=0, help="utterances at once; 0 is one for each core")
    parser.add_argument("--num_processes", type=int, default=1, help="above 1: processes for a large corpus")
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default=AUTO,
        help="where the model computes: cuda fails where it cannot, auto takes a CUDA device where there is one",
    )
    parser.add_argument(
        "--max_reject_share",
        type=float,
        default=DEFAULT_MAX_REJECT_SHARE,
        help="fail when more than this share is unusable",
    )


def run(args: argparse.Namespace) -> None:
    from cosyflow.extract.speaker_embedding import extract_speaker_embeddings
    from cosyflow.lease import held

    output_dir = args.output_dir or args.dir
    with held(output_dir, f"speaker-embedding {output_dir}"):
        extract_speaker_embeddings(
            args.dir,
            output_dir,
            args.onnx_path,
            num_processes=args.num_processes,
            max_reject_share=args.max_reject_share,
            num_threads=args.num_thread,
            name=Path(args.dir).name,
            device=args.device,
        )
