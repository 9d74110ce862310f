"""What a component hands to Kubeflow: the manifest as a file, its facts as metadata, its numbers as metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from cosyflow.stage import Manifest


class Artifact(Protocol):
    """The part of kfp.dsl.Artifact that is used here."""

    path: str
    metadata: dict[str, Any]


class Metrics(Protocol):
    """The part of kfp.dsl.Metrics that is used here."""

    def log_metric(self, metric: str, value: float) -> None: ...


def publish(manifest: Manifest, artifact: Artifact, metrics: Metrics) -> None:
    """Writes `manifest` to the artifact's file and describes it in the graph."""
    path = Path(artifact.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(manifest.to_json(), encoding="utf-8")
    artifact.metadata.update(
        stage=manifest.stage,
        name=manifest.name,
        uri=manifest.uri,
        digest=manifest.digest,
        reused=manifest.reused,
        stand_ins=manifest.stand_ins,
    )
    for name, value in {**manifest.counts, "seconds": manifest.seconds, **manifest.details}.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            metrics.log_metric(name, float(value))
