"""Make a recipe of the official settings (cosyvoice.yaml, cosyvoice2.yaml, cosyvoice3.yaml)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the official HyperPyYAML; nothing that it names is built or called")
    parser.epilog = "The recipe goes to standard output, and what it does not have of the file to standard error."


def run(args: argparse.Namespace) -> None:
    import yaml

    from cosyflow.config.load import read_text, values_of
    from cosyflow.config.official.read import read_official
    from cosyflow.config.official.recognition import is_official
    from cosyflow.errors import Problem, RefusalError

    text = read_text(args.file)
    if not is_official(text):
        raise RefusalError(
            [Problem("file", f"{args.file}: has no tags of HyperPyYAML; name an official settings file")]
        )
    recipe, notes = read_official(text, str(args.file))
    for note in notes:
        print(note, file=sys.stderr)
    print(f"# Made of {args.file.name} by cosyflow convert-recipe.")
    print(
        yaml.safe_dump(values_of(recipe), sort_keys=False, default_flow_style=None, allow_unicode=True, width=100),
        end="",
    )
