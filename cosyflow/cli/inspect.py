"""Say what a checkpoint, or each in a folder, is: form, version, part, sizes, and what does not fit a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        help="a .pt or .safetensors file, a folder of DeepSpeed or Hugging Face,"
        " a model directory or the folder of a training",
    )
    parser.add_argument("--config", help="compare with the language model of this recipe")


def run(args: argparse.Namespace) -> None:
    from cosyflow.checkpoint.describe import describe
    from cosyflow.checkpoint.folders import checkpoints_of

    model = None
    if args.config:
        import torch

        from cosyflow.config.load import load_config
        from cosyflow.families import facet, part_names

        with torch.device("meta"):  # shapes are all that is compared
            recipe = load_config(args.config)
            model = facet(recipe.version, "models").BUILDERS[part_names()[0]](recipe)
    for path in checkpoints_of(args.file):
        for line in describe(path, model).lines():
            print(line)
