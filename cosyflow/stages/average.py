"""Stage 6, average: the mean of the best checkpoints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from cosyflow.stage import Manifest, StageResult, run_stage
from cosyflow.storage import join, parent

LINEAGE = ("config_digest", "data_digest", "train_uri")
"""What an averaged model's manifest tells of its origin; the registry's tags repeat it."""


def run(trained: Manifest, model: str, average_num: int, val_best: bool, active: bool) -> Manifest:
    """Averages the `average_num` checkpoints with the lowest validation loss (val_best), or the newest ones."""

    def work(output: str) -> StageResult:
        from cosyflow.release.average import average_model

        result = average_model(trained.uri, join(output, f"{model}.pt"), average_num, val_best)
        return replace(result, details={**result.details, **_lineage(trained)})

    return run_stage(
        "average",
        trained.name,
        run_root(trained),
        inputs=[trained],
        settings={"average_num": average_num, "val_best": val_best},
        active=active,
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


def run_root(trained: Manifest) -> str:
    """The folder of a recipe's version under the data root: a manifest lies in <root>/<stage>/<name>/<key>."""
    return parent(parent(parent(trained.uri)))
