"""Component average: hands on what an earlier run made, names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from components import average
from components.conftest import OUTSIDE, Finish, read_output
from cosyflow.errors import CosyFlowError


def call(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    average.python_func(
        trained=finish("train", "cosyvoice2.tiny-llm"),
        data_root=str(data_root),
        recipe="cosyvoice2.tiny",
        overrides=[],
        model="llm",
        average_num=5,
        val_best=True,
        **OUTSIDE,
        **outputs,
    )


def test_hands_on(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    finish("average", "cosyvoice2.tiny-llm")
    call(data_root, finish, outputs)
    manifest = read_output(outputs)
    assert (manifest.stage, manifest.name, manifest.reused) == ("average", "cosyvoice2.tiny-llm", True)
    assert outputs["metrics"].metadata["outputs"] == 2


def test_names_what_is_missing(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    with pytest.raises(
        CosyFlowError, match=r"average/cosyvoice2.tiny-llm/latest.json: no such file; run the stage average"
    ):
        call(data_root, finish, outputs)
