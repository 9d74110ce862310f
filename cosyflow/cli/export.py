"""Stage 7: export a trained model as TorchScript and ONNX."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="recipe, e.g. conf/cosyvoice2.yaml")
    parser.add_argument(
        "--model", choices=["llm", "flow", "hifigan"], default="llm", help="which part the weights are of"
    )
    parser.add_argument("--checkpoint", required=True, help="weights to export, e.g. the averaged llm.pt")
    parser.add_argument("--output_dir", required=True, help="folder to write to")


def run(args: argparse.Namespace) -> None:
    from cosyflow.config.load import load_config
    from cosyflow.release.export import export_model

    export_model(load_config(args.config), args.model, args.checkpoint, args.output_dir)
