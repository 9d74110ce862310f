"""The Dockerfiles are clean, and the requirements they install have hashes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from images.requirements import GROUPS, export, read

CHECKOUT = Path(__file__).resolve().parents[3]
DOCKERFILES = sorted(CHECKOUT.glob("images/*/Dockerfile"))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(hadolint), "--no-color", str(dockerfile)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_run_as_a_user_that_kubernetes_can_tell_from_root(dockerfile: Path) -> None:
    lines = dockerfile.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 1000:1000"
    assert any(line.startswith("ARG BASE_IMAGE") for line in lines)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_in_the_context(dockerfile: Path) -> None:
    kept = [
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    ]
    copies = re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()[:-1]]
    assert all(any(source == name or source.startswith(f"{name}/") for name in kept) for source in sources), sources


def test_requirements_are_read_by_package() -> None:
    blocks = ["a==1 ; python_version < '3.12'", "a==2", "b==1"]
    text = "".join(f"{block} \\\n    --hash=sha256:{number}\n" for number, block in enumerate(blocks))
    packages = read(text)
    assert list(packages) == ["a", "b"]
    assert packages["a"].count("--hash") == 2
    assert "".join(packages.values()) == text


def test_every_requirement_of_the_lock_has_a_hash() -> None:
    uv = shutil.which("uv") or str(CHECKOUT / "build/uv/bin/uv")
    if not Path(uv).exists():
        pytest.skip("uv is not installed, which reads uv.lock")
    texts = export(uv, CHECKOUT)
    assert set(texts) == {*GROUPS, "cuda"}
    for text in texts.values():
        assert all("--hash=sha256:" in block for block in read(text).values())
    assert "torch" in read(texts["extract"])
    assert not read(texts["extract"]).keys() & read(texts["base"]).keys()
    assert "nvidia-nccl-cu13" in read(texts["cuda"])
    assert not [package for package in read(texts["extract"]) if package.startswith("nvidia-")]
