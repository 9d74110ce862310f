"""What differs between two versions of a model: settings, data, code and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cosyflow.errors import CosyFlowError
from cosyflow.release.history import by_stage, read_record
from cosyflow.stage import Manifest

Pair = list[Any]
"""The value of one version and that of the other; None where it has none."""


SPEED = "tokens_per_second"
"""A number of the machine, not of the model."""


def differences(first: Sequence[Manifest], second: Sequence[Manifest]) -> dict[str, dict[str, Any]]:
    """What differs between two chains, each pair in their order.

    Returns:
        `settings`: of the run by name, of its recipe by dotted key, as `--set` takes them. `data`: the digests of
        `merge`, and by name those of `subsets`. `code`: `commits`, `images` and `versions` by stage. `metrics`: the
        numbers of the trainings. Equal values are left out.

    Raises:
        CosyFlowError: the record of a version is gone.
    """
    return {
        "settings": _changed(_settings(first), _settings(second)),
        "data": _data(first, second),
        "code": _code(first, second),
        "metrics": _changed(_metrics(first), _metrics(second)),
    }


def _settings(chain: Sequence[Manifest]) -> dict[str, Any]:
    """The settings of the newest run in a chain that averaged or trained, flat."""
    record = next((m.record for stage in ("average", "train") for m in chain if m.stage == stage and m.record), "")
    if not record:
        raise CosyFlowError(f"{chain[0].uri}: no manifest before it names the record of a run, which has the settings")
    content = read_record(record)
    run, recipe = _flat(content.get("run", {})), _flat(content.get("recipe", {}))
    run.pop("overrides", None)  # the recipe has them, each under its key
    return {**{f"recipe.{key}" if key in run else key: value for key, value in recipe.items()}, **run}


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Mappings within mappings as one, with dotted keys."""
    if not isinstance(value, Mapping) or (key and not value):
        return {key: value}
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flat(entry, f"{key}.{name}" if key else str(name))
    return flat


def _data(first: Sequence[Manifest], second: Sequence[Manifest]) -> dict[str, Any]:
    lists = [_digests(chain, "merge") for chain in (first, second)]
    subsets = _changed(_digests(first, "parquet"), _digests(second, "parquet"))
    merged = [", ".join(digests.values()) or None for digests in lists]
    data: dict[str, Any] = {"merge": merged} if merged[0] != merged[1] else {}
    return data | ({"subsets": subsets} if subsets else {})


def _digests(chain: Sequence[Manifest], stage: str) -> dict[str, str]:
    return {manifest.name: manifest.digest for manifest in chain if manifest.stage == stage}


def _code(first: Sequence[Manifest], second: Sequence[Manifest]) -> dict[str, Any]:
    facts = {
        "commits": [by_stage(map(_with_state, chain), "commit") for chain in (first, second)],
        "images": [by_stage(chain, "image") for chain in (first, second)],
        "versions": [_versions(chain) for chain in (first, second)],
    }
    changed = {name: _changed(*pair) for name, pair in facts.items()}
    return {name: pairs for name, pairs in changed.items() if pairs}


def _with_state(manifest: Manifest) -> Manifest:
    """With a commit that says when the code was not all committed."""
    made_by = manifest.made_by
    if not made_by.get("commit") or made_by.get("clean") != "false":
        return manifest
    return replace(manifest, made_by={**made_by, "commit": f"{made_by['commit']}-dirty"})


def _versions(chain: Sequence[Manifest]) -> dict[str, Any]:
    known: dict[str, set[int]] = {}
    for manifest in chain:
        known.setdefault(manifest.stage, set()).add(manifest.version)
    single = {stage: sorted(versions) for stage, versions in sorted(known.items())}
    return {stage: versions[0] if len(versions) == 1 else versions for stage, versions in single.items()}


def _metrics(chain: Sequence[Manifest]) -> dict[str, float]:
    trainings = [manifest for manifest in chain if manifest.stage == "train"]
    return {
        name if len(trainings) == 1 else f"{manifest.name}.{name}": value
        for manifest in trainings
        for name, value in manifest.details.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != SPEED
    }


def _changed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Pair]:
    keys = sorted(first.keys() | second.keys())
    pairs = {key: [first.get(key), second.get(key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
