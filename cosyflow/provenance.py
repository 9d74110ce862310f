"""Which code runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

COMMIT_VARIABLE = "COSYFLOW_GIT_COMMIT"
CLEAN_VARIABLE = "COSYFLOW_GIT_CLEAN"
UNKNOWN = "unknown"


def git_commit() -> str:
    """The commit of the code that runs: COSYFLOW_GIT_COMMIT (images set it), else the checkout's, else "unknown"."""
    return os.environ.get(COMMIT_VARIABLE) or _git("rev-parse", "HEAD") or UNKNOWN


def git_is_clean() -> str:
    """ "true" where the code is that of the commit, "false" where files differ from it, else "unknown"."""
    if given := os.environ.get(CLEAN_VARIABLE):
        return given
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return UNKNOWN if changes is None else str(not changes).lower()


def _git(*arguments: str) -> str | None:
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
