"""Finished stages for tests, as an earlier run would have left them."""

from __future__ import annotations

from pathlib import Path

from cosyflow.stage import Manifest, StageResult, run_stage
from cosyflow.stages import SHARED_STAGES


def finish_stage(data_root: Path, stage: str, name: str, version: str = "cosyvoice2") -> Manifest:
    """Leaves the outputs of one stage, a single file, below the data root."""

    def work(output: str) -> StageResult:
        (Path(output) / "made.txt").write_text(f"{stage} of {name}")
        return StageResult({"inputs": 3, "outputs": 2, "rejects": 1}, ["made.txt"])

    root = data_root if stage in SHARED_STAGES else data_root / version
    return run_stage(stage, name, str(root), [], {}, active=True, work=work, code=["cosyflow.errors"])
