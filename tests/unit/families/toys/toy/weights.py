"""How weights of the toy are recognised."""

from __future__ import annotations

from cosyflow.families.recognition import Identity, Shapes


def recognise(shapes: Shapes) -> Identity | None:
    return Identity("toy", "counter") if set(shapes) == {"0.weight", "1.weight", "1.bias"} else None
