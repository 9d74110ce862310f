"""Of which family and part a checkpoint seems to be, by the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosyflow.families import facet, family_names

Shapes = Mapping[str, tuple[int, ...]]

GENERATOR = "generator."
"""Prefix of a vocoder's keys in a file of its training model, which also holds the discriminators."""
DIRECTIONS = ("parametrizations.weight.original1", "weight_v")
"""Names of a weight-normalised layer's direction, new and old."""


@dataclass(frozen=True)
class Identity:
    """What a checkpoint seems to be."""

    version: str | None
    """The family as the official files number it, or None where the keys fit several or none."""
    part: str | None
    """The part, or a name of what of it the file has; None where the keys are of none."""

    def __str__(self) -> str:
        return f"{self.version or 'unknown version'} {self.part or 'unknown part'}"


def identify(shapes: Shapes) -> Identity:
    """Guesses family and part from names and shapes of the tensors."""
    try:
        for name in family_names():
            found: Identity | None = facet(name, "weights").recognise(shapes)
            if found is not None:
                return found
        return Identity(None, vocoder_part(shapes))
    except (IndexError, ValueError):  # names of ours, and tensors of other numbers of dimensions
        return Identity(None, None)


def has(shapes: Shapes, prefix: str) -> bool:
    """Whether a key begins so."""
    return any(key.startswith(prefix) for key in shapes)


def is_flow(shapes: Shapes) -> bool:
    """Whether these are of a flow of any CosyVoice."""
    return has(shapes, "decoder.estimator.")


def vocoder_part(shapes: Shapes) -> str | None:
    """Of a vocoder of any CosyVoice "hift", with its discriminators "hifigan"; None for other models."""
    prefix = _vocoder_prefix(shapes)
    if not has(shapes, f"{prefix}f0_predictor."):
        return None
    return "hifigan" if prefix else "hift"


def upsampling_stages(shapes: Shapes) -> int:
    """Of a vocoder."""
    prefix = _vocoder_prefix(shapes)
    return sum(key.startswith(f"{prefix}ups.") and key.endswith(DIRECTIONS) for key in shapes)


def looks_ahead(shapes: Shapes) -> bool:
    """Whether the first convolution of a vocoder's f0 predictor has the four frames of a causal one."""
    names = [f"{_vocoder_prefix(shapes)}f0_predictor.condnet.0.{direction}" for direction in DIRECTIONS]
    return any(name in shapes and shapes[name][-1] == 4 for name in names)


def _vocoder_prefix(shapes: Shapes) -> str:
    return GENERATOR if has(shapes, GENERATOR) else ""
