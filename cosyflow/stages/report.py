"""After the last stage, however the run ended: what happened and what there is, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.stage import LATEST, Manifest
from cosyflow.stages import NUMBERS, SHARED_STAGES, SUBSET_STAGES
from cosyflow.stages.merge import NAME as LISTS
from cosyflow.stages.recipe import load_recipe, resolve_subsets
from cosyflow.stages.train import model_name

NO_REASON = "The graph of the run shows which task did not succeed; the last lines of its log say why."
"""Where the pipeline's runner tells none, as Kubeflow Pipelines does not."""


def run(
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    train_subsets: Sequence[str],
    dev_subsets: Sequence[str],
    test_subsets: Sequence[str],
    model: str,
    state: str,
    error: str,
) -> str:
    """A page that says how the run ended and lists the newest outputs below the data root."""
    reason = error or ("" if state == "SUCCEEDED" else NO_REASON)
    lines = ["# CosyFlow run", "", f"Ended as **{state}**. {reason}".rstrip(), ""]
    try:
        settings = load_recipe(recipe, overrides)
        subsets = resolve_subsets(settings, train_subsets, dev_subsets, test_subsets).every
        manifests = newest_manifests(data_root, settings.version, subsets, model_name(recipe, model))
    except CosyFlowError as problem:
        lines += [f"What lies below the data root cannot be told: {problem}"]
        return "\n".join(lines) + "\n"
    if manifests:
        lines += ["Newest outputs below the data root:", "", "| stage | of | made | seconds |", "|---|---|---|---|"]
        lines += [f"| {m.stage} | {m.name} | {describe_counts([m])} | {m.seconds:.1f} |" for m in manifests]
    if any(manifest.stand_ins for manifest in manifests):
        lines += ["", "Stand-in models took part: nothing here is fit for use."]
    return "\n".join(lines) + "\n"


def newest_manifests(data_root: str, version: str, subsets: Sequence[str], model: str) -> list[Manifest]:
    """The newest finished outputs of every stage that has any, in the order of the stages."""
    places = []
    for stage in NUMBERS:
        root = data_root if stage in SHARED_STAGES else storage.join(data_root, version)
        names = subsets if stage in SUBSET_STAGES else [LISTS if stage == "merge" else model]
        places += [storage.join(root, stage, name, LATEST) for name in names]
    return [Manifest.read(place) for place in places if storage.exists(place)]


def describe_counts(manifests: Sequence[Manifest]) -> str:
    """What stages made, in words: "52 of 53 utterances, 1 rejected" or "3 files"."""
    totals: dict[str, int] = {}
    for manifest in manifests:
        for name, count in manifest.counts.items():
            totals[name] = totals.get(name, 0) + count
    parts = []
    if {"inputs", "outputs", "rejects"} <= totals.keys():
        inputs, outputs, rejects = (totals.pop(name) for name in ("inputs", "outputs", "rejects"))
        parts.append(f"{outputs:,} of {inputs:,} utterances" + (f", {rejects:,} rejected" if rejects else ""))
    for name, count in totals.items():
        words = name.replace("_", " ")
        if words.endswith("bytes"):
            parts.append(f"{count / 1e6:.1f} MB {words.removesuffix('bytes')}".rstrip())
        else:
            parts.append(f"{count:,} {words}")
    return ", ".join(parts)
