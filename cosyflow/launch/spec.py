"""What a training job is, whatever kind of object of the cluster stands for it: its spec, its names and its labels."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cosyflow.launch.settings import JobSettings

JOB_LABEL = "cosyflow.dev/job"
RUN_LABEL = "cosyflow.dev/run"
ATTEMPT_LABEL = "cosyflow.dev/attempt"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MAX_BASE_LENGTH = 44
"""Of the 63 characters of a DNS label, the rest is for the attempt and for what a kind adds: `-worker-12345`."""
DIGEST_LENGTH = 10
PREFIX = "train"


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One attempt of a training job.

    Attributes:
        base: name of the job without its attempt (base_name).
        run: who started it; only the same run goes on with it.
        module: what every process runs, with `arguments`.
        num_nodes: pods.
        gpus_per_node: devices and processes of a pod; 0 is one process without a device.
        env: variables; those of `settings` go before them.
        owner: the object with which the job is deleted, as an ownerReference.
        asks_cluster: give the pods their account's token, for questions about the training's parent.
    """

    base: str
    namespace: str
    run: str
    attempt: int
    module: str
    arguments: tuple[str, ...]
    num_nodes: int
    gpus_per_node: int
    settings: JobSettings
    env: tuple[tuple[str, str], ...] = ()
    owner: tuple[tuple[str, str], ...] = ()
    asks_cluster: bool = False

    @property
    def name(self) -> str:
        return attempt_name(self.base, self.attempt)

    @property
    def job_labels(self) -> dict[str, str]:
        """Of the job itself, of which Kueue wants to know the queue."""
        queue = self.settings.queue
        return self.labels | ({QUEUE_LABEL: queue} if queue else {})

    @property
    def labels(self) -> dict[str, str]:
        """Of the job and of its pods."""
        return {
            "app.kubernetes.io/name": "cosyflow",
            "app.kubernetes.io/component": "training",
            JOB_LABEL: self.base,
            RUN_LABEL: self.run,
            ATTEMPT_LABEL: str(self.attempt),
        }


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
