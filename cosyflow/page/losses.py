"""The curves of every part that a run trained."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from cosyflow import storage
from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.errors import CosyFlowError
from cosyflow.page.charts import curves
from cosyflow.page.elements import append, element, missing
from cosyflow.page.learning import samples_of
from cosyflow.page.sources import Sources
from cosyflow.stage import Manifest
from cosyflow.training.tracking.metrics_file import METRICS_FILE

Series = dict[str, list[tuple[float, float]]]
"""Values over the number of updates, by name: `train/loss`, `cv/loss`."""

KINDS = {"train": "training", "train_epoch": "training, whole epochs", "cv": "validation"}
FIRST = "loss"
OF_THE_MACHINE = ("tokens_per_second", "mfu", "memory_gib")


def losses(sources: Sources) -> list[Element]:
    """The section with the curves of each part."""
    trained = sources.manifests("train")
    if not trained:
        return [missing("Nothing was trained: the run has no finished stage `train`.")]
    return [each for manifest in trained for each in _of_part(manifest)]


def _of_part(manifest: Manifest) -> list[Element]:
    heading = element("h3", manifest.name)
    facts = element("p", f"{_facts(manifest)}. Weights and metrics: ", element("code", manifest.uri))
    try:
        series = read_series(manifest.uri)
    except CosyFlowError as error:
        return [heading, facts, missing(f"Its curves cannot be read: {error}")]
    if not series:
        return [heading, facts, missing(f"It has neither a {METRICS_FILE} nor a checkpoint with losses.")]
    names = sorted({name.partition("/")[2] for name in series}, key=lambda name: (name != FIRST, name))
    drawn = {name: _chart(name, series) for name in names if name not in OF_THE_MACHINE}
    rest = [chart for name, chart in drawn.items() if name != FIRST]
    further = element("details", element("summary", f"{len(rest)} further curves"), *rest) if rest else None
    shown = element("div", class_="charts")
    append(shown, drawn.get(FIRST) or missing("It has no loss."))
    heard = samples_of(manifest.uri)
    return [each for each in (heading, facts, shown, further, *heard) if each is not None]


def read_series(uri: str) -> Series:
    """The metrics of a training's folder: of its metrics file, or else of the records of its checkpoints.

    Raises:
        CosyFlowError: a file is damaged.
    """
    file = storage.join(uri, METRICS_FILE)
    return _of_metrics(file) if storage.exists(file) else _of_checkpoints(uri)


def _of_metrics(uri: str) -> Series:
    series: Series = {}
    text = storage.read_text(uri)
    lines = text.splitlines()
    for place, line in enumerate(lines, start=1):
        if not line.endswith("}") and place == len(lines):  # the writer was killed within it
            continue
        try:
            entry = json.loads(line)
            update = float(entry["update"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CosyFlowError(f"{uri}:{place}: not a line of metrics; remove it") from error
        _add(series, update, entry)
    return series


def _of_checkpoints(uri: str) -> Series:
    series: Series = {}
    for checkpoint in list_checkpoints(uri):
        found = checkpoint.record.get("loss_dict")
        if checkpoint.is_whole_epoch and isinstance(found, dict):
            _add(series, float(checkpoint.update), {f"cv/{name}": value for name, value in found.items()})
    return series


def _add(series: Series, update: float, entry: Mapping[str, object]) -> None:
    for name, value in entry.items():
        if name.partition("/")[0] in KINDS and "/" in name and isinstance(value, int | float):
            series.setdefault(name, []).append((update, float(value)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _chart(name: str, series: Series) -> Element:
    named = {words: series[f"{kind}/{name}"] for kind, words in KINDS.items() if f"{kind}/{name}" in series}
    return curves(name, named, "updates")


def _facts(manifest: Manifest) -> str:
    counts, details = manifest.counts, manifest.details
    said = [f"{counts[name]:,} {name}" for name in ("updates", "epochs") if name in counts]
    said += [str(details["device"])] if details.get("device") else []
    for kind, label in (("train", "training loss"), ("cv", "validation loss")):
        first, last = details.get(f"{kind}_loss_first"), details.get(f"{kind}_loss_last")
        if _is_number(first) and _is_number(last):
            said.append(f"{label} from {first:.3f} to {last:.3f}")
    return ", ".join(said) or "No figures"
