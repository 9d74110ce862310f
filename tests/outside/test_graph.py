"""The compiled pipeline: what scripts give to a run on a server, and that equal sources give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.outside.commands import pipelines

NAMES_BY_TYPE: Mapping[str, str] = {
    "STRING": "data_root recipe data_url pretrained_dir instruct f0 reject_dir model train_engine launcher job "
    "checkpoint qwen_pretrain_path ref_model deepspeed_config deepspeed_save_states mlflow_uri experiment "
    "registered_model",
    "NUMBER_INTEGER": "start_stage stop_stage num_processes num_utts_per_parquet num_nodes gpus_per_node num_workers "
    "prefetch average_num",
    "NUMBER_DOUBLE": "max_reject_share",
    "BOOLEAN": "pin_memory use_amp dpo val_best",
    "LIST": "overrides train_subsets dev_subsets test_subsets",
}
TYPES = {name: kind for kind, names in NAMES_BY_TYPE.items() for name in names.split()}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    ended = pipelines("compile", "--output", str(folder), PYTHONHASHSEED="1")
    assert ended.returncode == 0, ended.stderr
    path = folder / "cosyvoice.yaml"
    assert str(path) in ended.stdout.splitlines()
    return path


@pytest.fixture(scope="module")
def ir(compiled: Path) -> dict[str, Any]:
    return next(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def parameters(ir: dict[str, Any]) -> dict[str, Any]:
    return ir["root"]["inputDefinitions"]["parameters"]


def test_the_pipeline_is_called_cosyvoice(ir: dict[str, Any]) -> None:
    assert ir["pipelineInfo"]["name"] == "cosyvoice"


def test_a_run_takes_every_parameter_of_before_with_its_type(parameters: dict[str, Any]) -> None:
    offered = {name: parameter["parameterType"] for name, parameter in parameters.items()}
    assert {name: offered.get(name) for name in TYPES} == TYPES


def test_a_run_needs_no_parameter_but_the_data_root(parameters: dict[str, Any]) -> None:
    needed = {name for name, parameter in parameters.items() if not parameter.get("isOptional")}
    assert needed <= {"data_root"}


def test_compiling_again_gives_the_same_bytes(compiled: Path, tmp_path: Path) -> None:
    ended = pipelines("compile", "--output", str(tmp_path), PYTHONHASHSEED="2")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / compiled.name).read_bytes() == compiled.read_bytes()
