"""The commands of the pages, run as they stand: in a fresh clone, in the order of the page, by a shell without options.

The clone's environment is that of the tests, so that `make setup` finds it done; its code is the clone's own. What a
reader brings along (GIVEN) lies in the clone before the page begins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cosyflow.standins import espeak
from cosyflow.standins.corpus import SPEAKERS, speak_corpus
from tests.documents import ROOT, blocks, name_of, pages
from tests.outside.commands import OF_OTHER_RUNS

MINUTES_OF_A_BLOCK = 10
LEFT_OUT = ("BASH_ENV", "PYTHONPATH", "VIRTUAL_ENV", "KUBECONFIG")
RUN = {name_of(page): [block for block in blocks(page) if block.info == "bash run"] for page in pages()}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not espeak.is_installed(), reason="speech is spoken by the optional espeakng-loader"),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no checkout"),
]


@pytest.mark.parametrize("page", [page for page, found in RUN.items() if found])
def test_the_commands_of_a_page_work_in_its_order(page: str, tmp_path: Path) -> None:
    clone = make_clone(tmp_path / "CosyFlow")
    GIVEN.get(page, lambda _: None)(clone)
    environment = {**surroundings(), "PYTHONPATH": str(clone)}
    script = "".join(f"echo {block}\n{block.text}" for block in RUN[page])
    ended = subprocess.run(
        ["bash", "-e"],
        input=script,
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60 * MINUTES_OF_A_BLOCK * len(RUN[page]),
    )
    assert ended.returncode == 0, f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}"


def surroundings() -> dict[str, str]:
    """A reader's shell: without the environment of the tests on its path, and without a GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHER_RUNS)}
    path = [part for part in kept.get("PATH", os.defpath).split(":") if Path(part) != Path(sys.executable).parent]
    kept |= {"PATH": ":".join(path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {name: value for name, value in kept.items() if name not in LEFT_OUT}


def make_clone(place: Path) -> Path:
    """A clone of this checkout with what is not yet committed, and this environment."""
    git = ["git", "-c", "safe.directory=*"]
    subprocess.run([*git, "clone", "--quiet", "--shared", str(ROOT), str(place)], check=True)
    listed = [["diff", "--name-only", "-z", "HEAD"], ["ls-files", "--others", "--exclude-standard", "-z"]]
    for words in listed:
        output = subprocess.run([*git, *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, output.split("\0")):
            if (ROOT / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
            else:
                (place / name).unlink(missing_ok=True)
    (place / ".venv").symlink_to(Path(sys.executable).parents[1])
    for name in ("pyproject.toml", "uv.lock"):  # older than the environment, which is made of them
        os.utime(place / name, (0, 0))
    return place


def speech_in_files(clone: Path) -> None:
    """A corpus of one's own: audio with its text beside it, in a folder for each speaker."""
    speak_corpus(clone / "spoken", SPEAKERS[:6])
    for text in (clone / "spoken").rglob("*.normalized.txt"):
        name = text.name.removesuffix(".normalized.txt")
        folder = clone / "my_corpus" / text.parents[1].name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(text, folder / f"{name}.txt")
        shutil.copy(text.with_name(f"{name}.wav"), folder / f"{name}.wav")
    shutil.rmtree(clone / "spoken")


GIVEN: Mapping[str, Callable[[Path], None]] = dict.fromkeys(
    ("README.md", "docs/own-speech.md", "docs/runs.md"), speech_in_files
)
