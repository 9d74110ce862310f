"""What a run on this machine ends with: what every stage made, how much and how long, and where to look next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cosyflow.progress import format_seconds
from cosyflow.run.ends import End
from cosyflow.run.record import Record
from cosyflow.run.report import describe_counts, in_order, loss_lines, registry_lines
from cosyflow.run.stages import STAGES


def summarize(ends: Sequence[End], seconds: float, record: Record, log_path: Path) -> str:
    """The summary of a finished run.

    Args:
        ends: of all its tasks.
        seconds: how long the whole run took.
    """
    lines = ["", f"{'stage':<18} {'time':>7}          made of it"]
    lines += [_stage_row(stage, [end for end in ends if end.stage == stage]) for stage in STAGES]
    lines += [f"{'all':<18} {format_seconds(seconds):>7}          below {record.run.data_root}", ""]
    manifests = [manifest for end in in_order(ends) if (manifest := end.read_manifest()) is not None]
    for manifest in manifests:
        lines += [*loss_lines(manifest), *registry_lines(manifest)]
    if any(manifest.stand_ins for manifest in manifests):
        lines.append("Made with stand-in models: this shows that everything works, the model speaks nothing.")
    lines += ["", f"Full output    {log_path}"]
    if record.tracking:
        lines.append(f"Runs, models   {mlflow_command(record.tracking)}")
    return "\n".join(lines) + "\n"


def mlflow_command(uri: str) -> str:
    """How the runs and models of a tracking store are looked at."""
    if uri.startswith(("http://", "https://")):
        return uri
    return shlex.join([str(Path(sys.executable).with_name("mlflow")), "ui", "--backend-store-uri", uri])


def _stage_row(stage: str, ends: Sequence[End]) -> str:
    made = [end for end in ends if end.state == "made"]
    there = [manifest for end in ends if (manifest := end.read_manifest()) is not None]
    state = "made" if made else "reused" if there else "skipped"
    time = format_seconds(sum(end.seconds for end in made)) if made else ""
    subsets = f"{len(there)} subsets: " if len(there) > 1 else ""
    return f"{stage:<18} {time:>7}  {state:<7} {subsets}{describe_counts(there)}".rstrip()
