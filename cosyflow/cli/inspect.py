"""Say what a checkpoint file is: version, part, sizes, and what of it does not fit a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a .pt or .safetensors file in the official form")
    parser.add_argument("--config", help="compare with the language model of this recipe")


def run(args: argparse.Namespace) -> None:
    from cosyflow.checkpoint.describe import describe

    model = None
    if args.config:
        import torch

        from cosyflow.config.load import load_config
        from cosyflow.training.language_model import build_language_model

        with torch.device("meta"):  # shapes are all that is compared
            model = build_language_model(cast(Any, load_config(args.config)).llm)
    for line in describe(args.file, model).lines():
        print(line)
