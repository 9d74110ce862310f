"""Component merge: hands on what an earlier run made, names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from components import merge
from components.conftest import OUTSIDE, Finish, read_output
from cosyflow.errors import CosyFlowError


def call(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    merge.python_func(
        parquets=[finish("parquet", "train-a"), finish("parquet", "dev-clean")],
        data_root=str(data_root),
        recipe="cosyvoice2.tiny",
        overrides=[],
        train_subsets=["train-a"],
        dev_subsets=["dev-clean"],
        **OUTSIDE,
        **outputs,
    )


def test_hands_on(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    finish("merge", "lists")
    call(data_root, finish, outputs)
    manifest = read_output(outputs)
    assert (manifest.stage, manifest.name, manifest.reused) == ("merge", "lists", True)
    assert outputs["metrics"].metadata["outputs"] == 2


def test_names_what_is_missing(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    with pytest.raises(CosyFlowError, match=r"merge/lists/latest.json: no such file; run the stage merge"):
        call(data_root, finish, outputs)
