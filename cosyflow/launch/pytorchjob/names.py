"""The names of jobs and labels: the same for the same work, and valid for Kubernetes."""

from __future__ import annotations

import hashlib
import re

MAX_BASE_LENGTH = 44
"""Of the 63 characters of a DNS label, the rest is for the attempt and for the operator's `-worker-12345`."""
DIGEST_LENGTH = 10
PREFIX = "train"


def base_name(title: str, model_dir: str) -> str:
    """The name of the job that trains into a folder, as DNS-1035 has it; one folder is one name.

    Args:
        title: what a person should read in it, e.g. "cosyvoice2-llm"; what does not fit a name is replaced or cut.
        model_dir: folder or s3:// prefix of the checkpoints.
    """
    digest = hashlib.sha256(model_dir.rstrip("/").encode()).hexdigest()[:DIGEST_LENGTH]
    readable = re.sub(r"[^a-z0-9]+", "-", title.lower())[: MAX_BASE_LENGTH - DIGEST_LENGTH - len(PREFIX) - 2].strip("-")
    return "-".join(part for part in (PREFIX, readable, digest) if part)


def attempt_name(base: str, attempt: int) -> str:
    """The name of an attempt, counted from 0; the first has the base name."""
    return f"{base}-r{attempt}" if attempt else base


def label_value(text: str) -> str:
    """A text as the value of a label: itself where it is one, else a digest of it."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:32]
