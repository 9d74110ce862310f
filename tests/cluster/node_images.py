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
        figure: is told how long building and importing took, and how large `base` is.
    """
    if lock := os.environ.get(LOCK_VARIABLE):
        return read_lock(Path(lock))
    if not CLUSTER_TOOLS.is_dir():
        pytest.skip(f"images are built where {CLUSTER_TOOLS} is; elsewhere name a lock file in {LOCK_VARIABLE}")
    os.environ |= {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
    subprocess.run([CLUSTER_TOOLS / "buildah-base"], check=True)
    make = ["make", "images", "BUILDER=buildah", f"BASE_IMAGE={PYTHON_IMAGE}", "MEASURE=base"]  # whose size has a limit
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

    containerd would keep each layer both packed and unpacked, and buildah keeps all that it packs in two forms for a
    while: of these images that is gigabytes more than `.ci/run` may take. buildah does not pack a layer whose file it
    finds in the folder: an empty one of that name stands for each that the node has.
    """
    inspected = subprocess.run(["buildah", "inspect", "--type", "image", reference], check=True, capture_output=True)
    layers = json.loads(inspected.stdout)["OCIv1"]["rootfs"]["diff_ids"]
    there = layers[: _count_unpacked(layers)]
    with tempfile.TemporaryDirectory(dir=LOCK.parent) as folder:
        blobs = Path(folder, "blobs", "sha256")
        blobs.mkdir(parents=True)
        for digest in there:
            (blobs / _hexadecimal(digest)).touch()
        packing = ["--quiet", "--compression-format", "zstd", "--compression-level", "1"]
        subprocess.run(["buildah", "push", *packing, reference, f"oci:{folder}:{reference}"], check=True)
        (described,) = _read_json(Path(folder, "index.json"))["manifests"]
        packed = [layer["digest"] for layer in _read_json(blobs / _hexadecimal(described["digest"]))["layers"]]
        assert packed[: len(there)] == there, f"{reference}: buildah packed layers that the node has"
        for digest in there:
            (blobs / _hexadecimal(digest)).unlink()
        sending = ["tar", "--remove-files", "-C", folder, "-cf", "-", "oci-layout", "index.json", "blobs"]
        with subprocess.Popen(sending, stdout=subprocess.PIPE) as archive:
            load = [CLUSTER_TOOLS / "image", "import", "-"]
            subprocess.run(load, stdin=archive.stdout, check=True, stdout=subprocess.DEVNULL)
        assert archive.returncode == 0, f"{reference}: tar could not read all that buildah wrote"
    _containerd("content", "rm", *packed[len(there) :])


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


def _hexadecimal(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
