"""What a run on this machine ends with: what every stage made, how much and how long, and where to look next."""

from __future__ import annotations

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
    if any(manifest.stand_ins for manifest in manifests):
        lines.append("Stand-in models took part: the result shows that everything works, and speaks no word.")
    if arguments.get("mlflow_uri"):
        lines.append(f"See the runs and models:  mlflow ui --backend-store-uri {arguments['mlflow_uri']}")
    lines.append(f"Full output:              {log_path}")
    return "\n".join(lines) + "\n"


def _stage_row(stage: str, manifests: Sequence[Manifest]) -> str:
    made = [manifest for manifest in manifests if not is_skipped(manifest)]
    worked = [manifest for manifest in made if not manifest.reused]
    time = format_seconds(sum(manifest.seconds for manifest in worked)) if worked else "reused" if made else "skipped"
    subsets = f"{len(made)} subsets: " if len(made) > 1 else ""
    return f"{stage:<18} {time:>7}  {subsets}{describe_counts(made)}".rstrip()
