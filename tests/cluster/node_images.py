"""The images of this checkout on the cluster's node: what is missing is built and imported."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER_TOOLS = REPOSITORY.parent / "shared" / "cluster"
"""Starts the test cluster, makes a base image where no registry is reached, and imports images into the node."""
PYTHON_IMAGE = "localhost/base/python:3.11"
LOCK = REPOSITORY / "build" / "images" / "images.lock.yaml"
LOCK_VARIABLE = "COSYFLOW_TEST_IMAGES"
"""A lock file whose images the node has or can pull: nothing is built then."""


def provide(figure: Callable[[str], None]) -> dict[str, str]:
    """The references of the images by name.

    Args:
        figure: is told how long building and importing took, and how large the images are.
    """
    if lock := os.environ.get(LOCK_VARIABLE):
        return read_lock(Path(lock))
    if not CLUSTER_TOOLS.is_dir():
        pytest.skip(f"images are built where {CLUSTER_TOOLS} is; elsewhere name a lock file in {LOCK_VARIABLE}")
    os.environ |= {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
    subprocess.run([CLUSTER_TOOLS / "buildah-base"], check=True)
    make = ["make", "images", "BUILDER=buildah", f"BASE_IMAGE={PYTHON_IMAGE}"]
    said = subprocess.run(make, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in said.splitlines():
        if ": built in " in line or " compressed, " in line:
            figure(line)
    references = read_lock(LOCK)
    there = subprocess.run([CLUSTER_TOOLS / "image", "list"], check=True, capture_output=True, text=True).stdout.split()
    for reference in references.values():
        if reference not in there:
            began = time.monotonic()
            import_image(reference)
            figure(f"{reference}: imported in {time.monotonic() - began:.0f} s")
    return references


def read_lock(path: Path) -> dict[str, str]:
    lock = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {**lock["images"], **lock.get("servers", {})}


def import_image(reference: str) -> None:
    """Sends the node those layers of an image that it has not unpacked yet, and drops them there when it has.

    containerd would keep each layer both packed and unpacked: of these images that is gigabytes more than `.ci/run`
    may take.
    """
    with tempfile.TemporaryDirectory(dir=LOCK.parent) as folder:
        packing = ["--quiet", "--compression-format", "zstd", "--compression-level", "1"]
        subprocess.run(["buildah", "push", *packing, reference, f"oci:{folder}:{reference}"], check=True)
        blobs = Path(folder, "blobs", "sha256")
        (described,) = _read_json(Path(folder, "index.json"))["manifests"]
        manifest = _read_json(blobs / _hexadecimal(described))
        unpacked = _count_unpacked(_read_json(blobs / _hexadecimal(manifest["config"]))["rootfs"]["diff_ids"])
        for layer in manifest["layers"][:unpacked]:
            (blobs / _hexadecimal(layer)).unlink()
        sending = ["tar", "--remove-files", "-C", folder, "-cf", "-", "oci-layout", "index.json", "blobs"]
        with subprocess.Popen(sending, stdout=subprocess.PIPE) as archive:
            load = [CLUSTER_TOOLS / "image", "import", "-"]
            subprocess.run(load, stdin=archive.stdout, check=True, stdout=subprocess.DEVNULL)
        assert archive.returncode == 0, f"{reference}: tar could not read all that buildah wrote"
    _containerd("content", "rm", *(layer["digest"] for layer in manifest["layers"][unpacked:]))


def _count_unpacked(layers: list[str]) -> int:
    """How many of an image's layers, from its first one on, the node has unpacked.

    containerd names what is unpacked by the layers below it too (ChainID of the OCI image specification).
    """
    there = {line.split()[0] for line in _containerd("snapshots", "ls").splitlines()}
    chain = ""
    for count, layer in enumerate(layers):
        chain = f"sha256:{sha256(f'{chain} {layer}'.encode()).hexdigest()}" if chain else layer
        if chain not in there:
            return count
    return len(layers)


def _containerd(*arguments: str) -> str:
    socket = Path(os.environ["KUBECONFIG"]).parent / "run" / "containerd.sock"
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _hexadecimal(described: dict[str, Any]) -> str:
    digest: str = described["digest"]
    return digest.removeprefix("sha256:")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
