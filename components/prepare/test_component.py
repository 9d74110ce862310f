"""Component prepare: hands on what an earlier run made, names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from components import prepare
from components.conftest import OUTSIDE, Finish, read_output
from cosyflow.errors import CosyFlowError


def call(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    prepare.python_func(
        downloaded=finish("download", "dev-clean"),
        data_root=str(data_root),
        instruct="",
        max_reject_share=0.1,
        **OUTSIDE,
        **outputs,
    )


def test_hands_on(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    finish("prepare", "dev-clean")
    call(data_root, finish, outputs)
    manifest = read_output(outputs)
    assert (manifest.stage, manifest.name, manifest.reused) == ("prepare", "dev-clean", True)
    assert outputs["metrics"].metadata["outputs"] == 2


def test_names_what_is_missing(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    with pytest.raises(CosyFlowError, match=r"prepare/dev-clean/latest.json: no such file; run the stage prepare"):
        call(data_root, finish, outputs)
