"""Stage 6, average: the mean of the best checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from cosyflow import storage
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe
from cosyflow.stages.selected import run_selected

LINEAGE = ("config_digest", "data_digest", "train_uri")
"""What an averaged model's manifest tells of its origin; the registry's tags repeat it."""


def run(
    trained: Manifest,
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    model: str,
    average_num: int,
    val_best: bool,
    activity: Activity,
) -> Manifest:
    """Averages the `average_num` checkpoints with the lowest validation loss (val_best), or the newest ones."""

    def work(output: str) -> StageResult:
        from cosyflow.release.average import average_model

        result = average_model(trained.uri, storage.join(output, f"{model}.pt"), average_num, val_best)
        return replace(result, details={**result.details, **_lineage(trained)})

    return run_selected(
        "average",
        trained.name,
        storage.join(data_root, load_recipe(recipe, overrides).version),
        inputs=[trained],
        settings={"average_num": average_num, "val_best": val_best},
        activity=activity,
        work=work,
        code=["cosyflow.release.average"],
    )


def _lineage(trained: Manifest) -> dict[str, str]:
    """What the weights were made from, for the registry's tags."""
    config = json.dumps(trained.settings, sort_keys=True)
    return {
        "config_digest": hashlib.sha256(config.encode()).hexdigest(),
        "data_digest": trained.inputs[0],
        "train_uri": trained.uri,
    }
