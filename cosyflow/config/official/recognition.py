"""Knows the official settings files from recipes, and whose model they are of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cosyflow.config.official.hyperyaml import Call

_TAG = re.compile(r"^[ \t]*[\w.]+:[ \t]*!(new|name|apply|ref|copy|include)\b", re.MULTILINE)
_FAMILIES = {"TransformerLM": "cosyvoice", "Qwen2LM": "cosyvoice2", "CosyVoice3LM": "cosyvoice3"}
"""By the class of the language model."""
_LANGUAGE_MODEL = re.compile(r"^llm:[ \t]*!new:[\w.]*?(\w+)[ \t]*$", re.MULTILINE)


def is_official(text: str) -> bool:
    """Whether the text of a file has tags of HyperPyYAML, which no recipe of ours has."""
    return _TAG.search(text) is not None


def family_in_text(text: str) -> str | None:
    """The family of the file's language model, without reading the file as YAML; None where it cannot be seen."""
    found = _LANGUAGE_MODEL.search(text)
    return _FAMILIES.get(found[1]) if found else None


def family_of(tree: Mapping[str, Any]) -> str | None:
    """The family of the language model of a file that was read; None where it has none that is known."""
    model = tree.get("llm")
    return _FAMILIES.get(model.name.rpartition(".")[2]) if isinstance(model, Call) else None
