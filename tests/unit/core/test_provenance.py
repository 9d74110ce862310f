"""Which code something was made by."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cosyflow import provenance
from cosyflow.provenance import git_commit, git_is_clean, run_tags
from tests.unit.packages import CHECKOUT


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (provenance.COMMIT_VARIABLE, provenance.CLEAN_VARIABLE, provenance.RUN_TAGS_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "c0ffee")
    assert (git_commit(), git_is_clean()) == ("c0ffee", "true")
    monkeypatch.setenv(provenance.CLEAN_VARIABLE, "false")
    assert (git_commit(), git_is_clean()) == ("c0ffee", "false")


def told(folder: Path) -> list[str]:
    """What the package in a folder says of itself."""
    program = "from cosyflow.provenance import *; print(git_commit(), git_is_clean())"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.medium
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_knows_its_commit_and_whether_its_code_is_that(tmp_path: Path) -> None:
    outer, checkout = tmp_path, tmp_path / "checkout"
    (checkout / "cosyflow").mkdir(parents=True)
    for name in ("__init__.py", "provenance.py", "progress.py", "errors.py"):
        shutil.copy(CHECKOUT / "cosyflow" / name, checkout / "cosyflow" / name)

    def git(*words: str, cwd: Path = checkout) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        return subprocess.run(["git", *who, *words], cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q", cwd=outer)
    git("add", ".", cwd=outer)
    git("commit", "-qm", "somebody else's", cwd=outer)
    assert told(checkout) == ["unknown", "unknown"], "an installed package is not what lies around it"

    (checkout / ".gitignore").write_text("__pycache__\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "ours")
    (checkout / "my_speech").mkdir()
    (checkout / "my_speech" / "text").write_text("a user's\n")
    assert told(checkout) == [git("rev-parse", "HEAD"), "true"]
    with (checkout / "cosyflow" / "errors.py").open("a") as file:
        file.write("# changed\n")
    assert told(checkout) == [git("rev-parse", "HEAD"), "false"]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", {}),
        ('{"kfp.pipeline_run_id": "7", "attempt": 2}', {"kfp.pipeline_run_id": "7", "attempt": "2"}),
        ("{broken", {}),
        ("[1]", {}),
    ],
)
def test_tags_of_the_environment(
    text: str, tags: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(provenance.RUN_TAGS_VARIABLE, text)
    assert run_tags() == tags
    warned = "COSYFLOW_RUN_TAGS is not a JSON object" in capsys.readouterr().out
    assert warned == (bool(text) and not tags)
