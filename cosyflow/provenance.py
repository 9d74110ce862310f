"""Which code and which run something was made by, for the tags of runs and models."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from cosyflow.progress import say

COMMIT_VARIABLE = "COSYFLOW_GIT_COMMIT"
CLEAN_VARIABLE = "COSYFLOW_GIT_CLEAN"
RUN_TAGS_VARIABLE = "COSYFLOW_RUN_TAGS"
"""A JSON object of tags of the run, e.g. {"kfp.pipeline_run_id": "..."}; a training's job passes it to its pods."""
LOCAL_RUN = "local-"
"""How the ids of runs on somebody's machine begin."""
UNKNOWN = "unknown"
DIRTY = "-dirty"
CODE = ("cosyflow", "components", "pipelines", "conf")


def git_commit() -> str:
    """The commit of the code that runs: COSYFLOW_GIT_COMMIT (images set it), else the checkout's, else "unknown"."""
    return os.environ.get(COMMIT_VARIABLE) or _git("rev-parse", "HEAD") or UNKNOWN


def git_is_clean() -> str:
    """Whether the code is that of `git_commit`: "true", "false" or "unknown"; COSYFLOW_GIT_CLEAN wins.

    Other files (a user's data, say) do not count.
    """
    if known := os.environ.get(CLEAN_VARIABLE):
        return known
    if commit := os.environ.get(COMMIT_VARIABLE):  # of an image, whose builder marks it where files differed
        return "false" if commit.endswith(DIRTY) else "true"
    changes = _git("status", "--porcelain", "--", *CODE)
    return UNKNOWN if changes is None else "false" if changes else "true"


def is_local(run: str) -> bool:
    """Whether a run, by its id, is one on somebody's machine, which no server knows."""
    return run.startswith(LOCAL_RUN)


def run_tags() -> dict[str, str]:
    """The tags of COSYFLOW_RUN_TAGS. Anything but a JSON object is reported: no work fails because of tags."""
    text = os.environ.get(RUN_TAGS_VARIABLE, "")
    if not text:
        return {}
    try:
        tags = json.loads(text)
    except ValueError:
        tags = None
    if not isinstance(tags, dict):
        say("train", f"warning: {RUN_TAGS_VARIABLE} is not a JSON object, and its tags are left out: {text[:80]}")
        return {}
    return {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}


def _git(*words: str) -> str | None:
    """What git answers about the checkout that this file is in; None where there is none."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():  # an installed package may lie below somebody else's checkout
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(checkout), *words], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
