"""The operator that DeepSpeed needs without a GPU: taken where it is built, and what is in the way else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosyflow.errors import MachineError
from cosyflow.training.engine.operators import FOLDER_VARIABLE, OPERATOR, prepare_operators
from tests.unit.training.toy import ALONE


@pytest.mark.medium
def test_a_folder_that_cannot_be_made_is_told_with_the_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(
        MachineError, match=rf"needs its operator {OPERATOR}.*cannot be made.*{FOLDER_VARIABLE}.*torch_ddp"
    ):
        prepare_operators(ALONE)


@pytest.mark.medium
def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"g\+\+ and ninja is not installed"):
        prepare_operators(ALONE)


PROGRAM = """
from cosyflow.training.engine.operators import operator_folder, prepare_operators
from cosyflow.training.ranks import process_group
with process_group("gloo", 600, even_alone=True) as ranks:
    prepare_operators(ranks)
from deepspeed.comm.torch import build_shm_op
assert build_shm_op().vector_kernel_level() >= 0
print(operator_folder())
"""
READ_ONLY = (
    'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" 2>/dev/null && shift && exec "$@"'
)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root mounts a folder read-only")
def test_what_an_image_has_is_taken_under_a_read_only_root(tmp_path: Path) -> None:
    """Without compiler and ninja: nothing is built there."""
    here = subprocess.run([sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, text=True).stdout
    image = tmp_path / "image"
    shutil.copytree(here.splitlines()[-1], image / OPERATOR)
    shell = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(image)]
    environment = ["/usr/bin/env", f"{FOLDER_VARIABLE}={image}", "PATH=/nowhere"]
    there = subprocess.run([*shell, *environment, sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE)
    assert there.stdout.decode().splitlines()[-1] == str(image / OPERATOR)
