"""Stage 5, merge: the lists of training and validation shards."""

from __future__ import annotations

from collections.abc import Sequence

from cosyflow import storage
from cosyflow.progress import say
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe, resolve_subsets
from cosyflow.stages.selected import run_selected

NAME = "lists"


def run(
    parquets: Sequence[Manifest],
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    train_subsets: Sequence[str],
    dev_subsets: Sequence[str],
    activity: Activity,
) -> Manifest:
    """Writes train.data.list and dev.data.list; subsets that are in neither go into neither."""
    settings = load_recipe(recipe, overrides)
    subsets = resolve_subsets(settings, train_subsets, dev_subsets, ["none"])
    folders = {manifest.name: manifest.uri for manifest in parquets}

    def work(output: str) -> StageResult:
        from cosyflow.dataset.merge import merge_lists

        made = merge_lists(folders, subsets.train, subsets.dev, output)
        counts = made.counts
        say(f"merge {NAME}", f"{counts['train_utterances']} to train on, {counts['dev_utterances']} to validate on")
        return made

    return run_selected(
        "merge",
        NAME,
        storage.join(data_root, settings.version),
        inputs=[manifest for manifest in parquets if manifest.name in (*subsets.train, *subsets.dev)],
        settings={"train_subsets": subsets.train, "dev_subsets": subsets.dev},
        activity=activity,
        work=work,
        code=["cosyflow.dataset.merge", "cosyflow.dataset.shard"],
    )
