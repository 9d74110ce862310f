"""Temporary folders go at the end, and those of killed processes when the next one begins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cosyflow.scratch import remove_leftovers, scratch_folder

HOLD = """
from cosyflow.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "archive.tar.gz").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    remove_leftovers.cache_clear()
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder, and that folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_empty_and_goes_at_the_end(temporary: Path) -> None:
    def fail() -> None:
        with scratch_folder() as folder:
            assert list(folder.iterdir()) == []
            (folder / "file").write_text("x")
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_goes_when_the_next_begins(temporary: Path) -> None:
    killed, left = holder()
    living, kept = holder()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.exists()
    with scratch_folder():
        assert not left.parent.exists()
        assert kept.exists()
    living.communicate("\n")
    assert list(temporary.iterdir()) == []


def test_folders_of_others_stay(temporary: Path) -> None:
    """Without a name of a process, or with one of another machine, nobody knows whether it is still needed."""
    (temporary / "cosyflow-1").mkdir()
    (temporary / "cosyflow-2").mkdir()
    (temporary / "cosyflow-2" / "process").write_text(f"elsewhere pid {os.getpid()} started 1")
    with scratch_folder():
        assert len(list(temporary.iterdir())) == 3
