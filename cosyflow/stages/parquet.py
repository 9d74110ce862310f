"""Stage 3, parquet: a subset's utterances, embeddings and tokens as the shards that training reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe
from cosyflow.stages.selected import run_selected

if TYPE_CHECKING:
    from cosyflow.dataset.pitch import F0Method

F0_CHOICES = ("auto", "none", "harvest", "fast")


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
    model: str,
    f0: str,
    reject_dir: str,
    activity: Activity,
) -> Manifest:
    """Writes parquet shards and their data.list.

    `f0` of "auto" measures f0 (by the fast method) where `model` is hifigan, the only one that reads it.
    `reject_dir` holds a folder for each subset that has rejected speech, with its `utt2speech_token.pt`; "" means none.
    """
    if f0 not in F0_CHOICES:
        raise CosyFlowError(f"f0: {f0!r} is not one of {', '.join(F0_CHOICES)}")
    method = cast("F0Method", f0 if f0 != "auto" else "fast" if model == "hifigan" else "none")
    settings = load_recipe(recipe, overrides)
    rejected = _rejected_tokens(reject_dir, prepared.name)

    def work(output: str) -> StageResult:
        from cosyflow.dataset.alignment import Alignment
        from cosyflow.dataset.parquet import make_parquet

        return make_parquet(
            prepared.uri,
            embeddings.uri,
            tokens.uri,
            output,
            num_utts_per_parquet=num_utts_per_parquet,
            num_processes=num_processes,
            max_reject_share=max_reject_share,
            reject_token_dir=storage.parent(rejected) if rejected else None,
            alignment=Alignment.of(settings),
            f0=method,
        )

    return run_selected(
        "parquet",
        prepared.name,
        storage.join(data_root, settings.version),
        inputs=[prepared, embeddings, tokens],
        settings={
            "num_utts_per_parquet": num_utts_per_parquet,
            "max_reject_share": max_reject_share,
            "f0": method,
            "rejected": storage.digest(rejected) if rejected else "",
        },
        activity=activity,
        work=work,
        code=[
            "cosyflow.dataset.parquet",
            "cosyflow.dataset.shard",
            "cosyflow.dataset.arrow",
            "cosyflow.dataset.tables",
            "cosyflow.dataset.alignment",
            "cosyflow.dataset.pitch",
            "cosyflow.audio.f0",
            "cosyflow.audio.speech",
        ],
    )


def _rejected_tokens(reject_dir: str, subset: str) -> str:
    """The file of a subset's rejected speech; "" when it has none."""
    if not reject_dir:
        return ""
    from cosyflow.dataset.tables import UTT2SPEECH_TOKEN

    uri = storage.join(reject_dir, subset, UTT2SPEECH_TOKEN)
    return uri if storage.exists(uri) else ""
