"""Stage 7: put models into the MLflow registry."""

from __future__ import annotations

import argparse

from cosyflow.errors import Problem, RefusalError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="NAME=PLACE", help="a registered model's name and its file or folder"
    )
    parser.add_argument("--output_dir", default=".", help="folder for registered.json, which names the versions")
    parser.add_argument(
        "--mlflow_uri", default="", help="MLflow server or sqlite:///FILE; by default MLFLOW_TRACKING_URI"
    )
    parser.add_argument("--alias", default="candidate", help="alias that the new versions get")
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="a tag of the new versions")
    parser.add_argument("--stand_ins", action="store_true", help="mark the models as made with stand-in models")


def run(args: argparse.Namespace) -> None:
    from cosyflow.lease import held
    from cosyflow.release.register import register_models

    models, tags = _pairs(args.models), _pairs(args.tag)
    with held(args.output_dir, f"register {' '.join(models)}"):
        register_models(models, args.output_dir, args.mlflow_uri, tags, args.alias, args.stand_ins)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise RefusalError([Problem(text, "is no pair; write it as NAME=VALUE")])
        pairs[key] = value
    return pairs
