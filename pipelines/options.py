"""The pipeline's parameters as command-line options, with the defaults and descriptions that the graph has."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosyflow.cli.parser import Parser
from pipelines.cosyvoice import cosyvoice

TYPES: Mapping[str, type] = {"String": str, "Integer": int, "Float": float}


def add_parameters(parser: Parser, defaults: Mapping[str, Any] | None = None) -> None:
    """Adds an option for every parameter.

    Args:
        defaults: values that take the place of the pipeline's own, or of a missing one.
    """
    group = parser.add_argument_group("parameters of the pipeline")
    for name, spec in cosyvoice.component_spec.inputs.items():
        default = (defaults or {}).get(name, spec.default)
        settings: dict[str, Any] = {"dest": name, "help": (spec.description or "").replace("%", "%%")}
        settings |= {"required": True} if default is None else {"default": default}
        spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
        if spec.type == "Boolean":
            settings["action"] = argparse.BooleanOptionalAction
        elif spec.type == "List[String]":
            settings |= {"nargs": "*", "metavar": name.upper().removesuffix("S")}
        else:
            settings["type"] = TYPES[spec.type]
        group.add_argument(*spellings, **settings)


def read_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters that add_parameters made options of."""
    return {name: getattr(args, name) for name in cosyvoice.component_spec.inputs}


def with_absolute_paths(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with local places written from the root, as manifests, lists and the registry keep them."""
    places = {
        name: parameters[name]
        for name in ("data_root", "data_url", "pretrained_dir", "ref_model", "reject_dir")
        if parameters[name]
    }
    return {**parameters, **{name: _absolute(place) for name, place in places.items()}}


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).absolute())
