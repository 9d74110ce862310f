"""Stage 3, parquet: a subset's utterances, embeddings and tokens as the shards that training reads."""

from __future__ import annotations

from collections.abc import Sequence

from cosyflow import storage
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe
from cosyflow.stages.selected import run_selected


def run(
    prepared: Manifest,
    embeddings: Manifest,
    tokens: Manifest,
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    num_utts_per_parquet: int,
    num_processes: int,
    max_reject_share: float,
    activity: Activity,
) -> Manifest:
    """Writes parquet shards and their data.list."""
    version = load_recipe(recipe, overrides).version

    def work(output: str) -> StageResult:
        from cosyflow.dataset.parquet import make_parquet

        return make_parquet(
            prepared.uri,
            embeddings.uri,
            tokens.uri,
            output,
            num_utts_per_parquet=num_utts_per_parquet,
            num_processes=num_processes,
            max_reject_share=max_reject_share,
        )

    return run_selected(
        "parquet",
        prepared.name,
        storage.join(data_root, version),
        inputs=[prepared, embeddings, tokens],
        settings={"num_utts_per_parquet": num_utts_per_parquet, "max_reject_share": max_reject_share},
        activity=activity,
        work=work,
        code=[
            "cosyflow.dataset.parquet",
            "cosyflow.dataset.shard",
            "cosyflow.dataset.arrow",
            "cosyflow.dataset.tables",
        ],
    )
