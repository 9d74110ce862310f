"""The image lock that a build writes is the one that a compile reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.errors import CosyFlowError
from images.lock import write_lock
from images.plan import TASK_IMAGES
from pipelines.compiling import read_image_lock


def references(suffix: str) -> dict[str, str]:
    return {image: f"registry.example/cosyflow-{image}{suffix}" for image in (*TASK_IMAGES, "mlflow")}


def test_a_pushed_build_is_fit_for_a_release(tmp_path: Path) -> None:
    path = tmp_path / "build/images.lock.yaml"
    written = references("@sha256:" + "1" * 64)
    write_lock(path, written)
    assert read_image_lock(path, release=True) == {image: written[image] for image in TASK_IMAGES}


def test_a_local_build_is_not(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    write_lock(path, references(":0123456789abcdef"))
    assert read_image_lock(path)["base"].endswith(":0123456789abcdef")
    with pytest.raises(CosyFlowError, match=r"base: .* has no digest"):
        read_image_lock(path, release=True)


def test_an_image_that_was_not_built_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "images.lock.yaml"
    write_lock(path, references(":1"))
    write_lock(path, {"train": "registry.example/cosyflow-train:2"})
    lock = read_image_lock(path)
    assert (lock["base"][-2:], lock["train"][-2:]) == (":1", ":2")
