"""What a run on this machine ends with: what every stage made, how much and how long, and where to look next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cosyflow.progress import format_seconds
from cosyflow.stage import Manifest
from cosyflow.stages import NUMBERS
from cosyflow.stages.report import describe_counts
from cosyflow.stages.selected import is_skipped


def summarize(manifests: Sequence[Manifest], seconds: float, arguments: Mapping[str, Any], log_path: Path) -> str:
    """The summary of a finished run.

    Args:
        manifests: of all its tasks.
        seconds: how long the whole run took.
        arguments: the pipeline's parameters.
    """
    lines = ["", f"{'stage':<18} {'time':>7}  made"]
    for stage in NUMBERS:
        lines.append(_stage_row(stage, [manifest for manifest in manifests if manifest.stage == stage]))
    lines += [f"{'all':<18} {format_seconds(seconds):>7}  below {arguments['data_root']}", ""]
    for manifest in manifests:
        lines += _loss_lines(manifest.details) if manifest.stage == "train" else []
        lines += _registry_lines(manifest.details) if manifest.stage == "register" else []
    if any(manifest.stand_ins for manifest in manifests):
        lines.append("Made with stand-in models: this shows that everything works, the model speaks nothing.")
    lines += ["", f"Full output    {log_path}"]
    if arguments.get("mlflow_uri"):
        lines.append(f"Runs, models   {mlflow_command(arguments['mlflow_uri'])}")
    return "\n".join(lines) + "\n"


def mlflow_command(uri: str) -> str:
    """How the runs and models of a tracking store are looked at."""
    if uri.startswith(("http://", "https://")):
        return uri
    return shlex.join([str(Path(sys.executable).with_name("mlflow")), "ui", "--backend-store-uri", uri])


def _loss_lines(details: Mapping[str, Any]) -> list[str]:
    """Losses of the first and the last epoch, and by how much they fell."""
    lines = []
    for kind, label in (("train", "Training loss"), ("cv", "Validation loss")):
        first, last = details.get(f"{kind}_loss_first"), details.get(f"{kind}_loss_last")
        if first is not None and last is not None:
            lines.append(
                f"{label:<16} {first:.3f} in the first epoch, {last:.3f} in the last ({last / first - 1:+.0%})"
            )
    return lines


def _registry_lines(details: Mapping[str, Any]) -> list[str]:
    versions = details.get("versions", {})
    return [f"{'Registered':<16} {name} version {version}" for name, version in versions.items()]


def _stage_row(stage: str, manifests: Sequence[Manifest]) -> str:
    made = [manifest for manifest in manifests if not is_skipped(manifest)]
    worked = [manifest for manifest in made if not manifest.reused]
    time = format_seconds(sum(manifest.seconds for manifest in worked)) if worked else "reused" if made else "skipped"
    subsets = f"{len(made)} subsets: " if len(made) > 1 else ""
    return f"{stage:<18} {time:>7}  {subsets}{describe_counts(made)}".rstrip()
