"""Component parquet: hands on what an earlier run made, names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from components import parquet
from components.conftest import OUTSIDE, Finish, read_output
from cosyflow.errors import CosyFlowError


def call(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    parquet.python_func(
        prepared=finish("prepare", "dev-clean"),
        embeddings=finish("speaker-embedding", "dev-clean"),
        tokens=finish("speech-token", "dev-clean"),
        data_root=str(data_root),
        recipe="cosyvoice2.tiny",
        overrides=[],
        num_utts_per_parquet=1000,
        num_processes=1,
        max_reject_share=0.1,
        model="llm",
        f0="none",
        reject_dir="",
        **OUTSIDE,
        **outputs,
    )


def test_hands_on(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    finish("parquet", "dev-clean")
    call(data_root, finish, outputs)
    manifest = read_output(outputs)
    assert (manifest.stage, manifest.name, manifest.reused) == ("parquet", "dev-clean", True)
    assert outputs["metrics"].metadata["outputs"] == 2


def test_names_what_is_missing(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    with pytest.raises(CosyFlowError, match=r"parquet/dev-clean/latest.json: no such file; run the stage parquet"):
        call(data_root, finish, outputs)
