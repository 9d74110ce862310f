"""YAML as recipes and settings files have it."""

from __future__ import annotations

import re

import yaml


class PlainLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-5 is a number, as in YAML 1.2."""


PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
