"""A stage within a range of stages: it works, hands on what there is, or is left out because the run ends before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cosyflow import storage
from cosyflow.stage import LATEST, Manifest, StageResult, run_stage
from cosyflow.stages import Activity

SKIPPED = "skipped"


def run_selected(
    stage: str,
    name: str,
    root: str,
    inputs: Sequence[Manifest],
    settings: Mapping[str, Any],
    activity: Activity,
    work: Callable[[str], StageResult],
    code: Sequence[str],
) -> Manifest:
    """As cosyflow.stage.run_stage, for a stage of a run from one stage to another.

    A stage beyond the last one that nobody has ever run gives a manifest without outputs (see is_skipped), so that
    preparing data alone ends well.
    """
    if activity is Activity.IS_BEYOND and not storage.exists(storage.join(root, stage, name, LATEST)):
        return Manifest(stage, name, "", "", "", {}, {}, {}, {}, [], {SKIPPED: True}, 0.0, False)
    return run_stage(stage, name, root, inputs, settings, activity is Activity.WORKS, work, code)


def is_skipped(manifest: Manifest) -> bool:
    """Whether a stage was left out and has no outputs."""
    return manifest.details.get(SKIPPED) is True
