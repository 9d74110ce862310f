"""What a run did, from the ends of its tasks: rows for a table, a page for the Kubeflow UI, and `summary.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cosyflow.errors import CosyFlowError
from cosyflow.run.ends import End, read_ends
from cosyflow.run.record import Record
from cosyflow.run.speakers import distinct_speakers
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest

UNKNOWN = "RUNNING"
NO_REASON = "The graph of the run shows which task did not succeed; the last lines of its log say why."
"""Where no task of ours could leave a reason: its pod never started, or was killed."""


def page(data_root: str, run: str, state: str, error: str = "") -> str:
    """How a run ended, as Markdown: its own tasks only, made or reused.

    Args:
        run: id of the run.
        state: "SUCCEEDED", or whatever the server calls the end. A server may not know it yet, as a group of tasks gets
            its state from the last of them that ran: where a cache answered for all, or none was to run, it stays
            "RUNNING". Then the ends of the tasks decide.
        error: what the server says of it.
    """
    record, trouble = None, ""
    try:
        ends, uri = read_ends(data_root, run)
    except CosyFlowError as problem:
        return f"# CosyFlow run\n\nEnded as **{state}**. {error}\n\nIts tasks' ends cannot be read: {problem}\n"
    try:
        record = Record.read(uri) if uri else None
    except CosyFlowError as problem:
        trouble = str(problem)
    ordered = in_order(ends)
    failures = [end for end in ordered if end.state == "failed"]
    if state == UNKNOWN:
        state = "FAILED" if failures or record is None or missing_ends(ends, record) else "SUCCEEDED"
    title = f"{record.recipe_name} {record.run.model}" if record else "run"
    lines = [f"# CosyFlow {title}", "", f"Ended as **{state}**. {_reason(state, error, failures)}".rstrip(), ""]
    for end in failures:
        lines += [f"- **{f'{end.stage} {end.name}'.strip()}** failed: {end.error}"]
    rows = [end for end in ordered if end.stage in STAGES and end.state != "failed"]
    if rows:
        lines += ["", "| stage | of | | made | seconds |", "|---|---|---|---|---|"]
        lines += [_row(end) for end in rows]
    manifests = [manifest for end in ordered if (manifest := end.read_manifest()) is not None]
    lines += [
        "",
        *[f"{line}  " for manifest in manifests for line in (*loss_lines(manifest), *registry_lines(manifest))],
    ]
    if any(manifest.stand_ins for manifest in manifests):
        lines += ["", "Stand-in models took part: nothing here is fit for use."]
    if record:
        lines += ["", f"Settings: `{record.uri}`"]
    elif trouble:
        lines += ["", f"The run's settings cannot be read: {trouble}"]
    return "\n".join(lines).rstrip() + "\n"


def missing_ends(ends: Sequence[End], record: Record) -> list[str]:
    """What of a run has left no end: its task did not run, or could not leave one."""
    there = {(end.stage, end.name) for end in ends}
    wanted = [(stage.name, name) for stage in STAGES.values() for name in stage.names(record)]
    return [f"{stage} {name}" for stage, name in wanted if (stage, name) not in there]


def summary(ends: Sequence[End], report: str) -> dict[str, Any]:
    """The run for programs; `report` is the path of the report for people. The numbered stages only."""
    stages, registered = [], []
    for end in in_order(ends):
        if end.stage not in STAGES:
            continue
        manifest = end.read_manifest()
        stages.append(
            {
                "stage": end.stage,
                "name": end.name,
                "key": manifest.key if manifest else "",
                "uri": manifest.uri if manifest else "",
                "state": end.state,
                "seconds": end.seconds,
                **({"error": end.error} if end.error else {}),
            }
        )
        if manifest and end.stage == "register":
            versions = manifest.details.get("versions", {})
            registered += [{"name": name, "version": version} for name, version in sorted(versions.items())]
    return {"stages": stages, "registered": registered, "report": report}


def in_order(ends: Sequence[End]) -> list[End]:
    """In the order of the stages, those of one by name; what is no stage comes first."""
    order = list(STAGES)
    return sorted(ends, key=lambda end: (order.index(end.stage) if end.stage in order else -1, end.name))


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
    for name in ("ignored", "seen"):  # transcripts and the like; the manifest has them by reason
        totals.pop(name, None)
    if not totals.get("left_out_of_means", 1):
        del totals["left_out_of_means"]
    for name, count in totals.items():
        words = name.replace("_", " ")
        if name == "speakers":
            distinct = distinct_speakers(manifests)
            parts.append(f"at most {count:,} speakers" if distinct is None else f"{distinct:,} speakers")
        elif words.endswith("bytes"):
            parts.append(f"{count / 1e6:.1f} MB {words.removesuffix('bytes')}".rstrip())
        else:
            parts.append(f"{count:,} {words}")
    return ", ".join(parts)


def loss_lines(manifest: Manifest) -> list[str]:
    """Losses of a training's first and last epoch, and by how much they fell."""
    if manifest.stage != "train":
        return []
    lines = []
    for kind, label in (("train", "Training loss"), ("cv", "Validation loss")):
        first, last = manifest.details.get(f"{kind}_loss_first"), manifest.details.get(f"{kind}_loss_last")
        if first is not None and last is not None:
            change = f"{last / first - 1:+.0%}" if first else "no change"
            lines.append(f"{label:<16} {first:.3f} in the first epoch, {last:.3f} in the last ({change})")
    return lines


def registry_lines(manifest: Manifest) -> list[str]:
    """The versions that were registered."""
    versions = manifest.details.get("versions", {}) if manifest.stage == "register" else {}
    return [f"{'Registered':<16} {name} version {version}" for name, version in sorted(versions.items())]


def _reason(state: str, error: str, failures: Sequence[End]) -> str:
    if state == "SUCCEEDED" or failures:
        return ""
    return error or NO_REASON


def _row(end: End) -> str:
    manifest = end.read_manifest()
    made = describe_counts([manifest]) if manifest else ""
    return f"| {end.stage} | {end.name} | {end.state} | {made} | {f'{end.seconds:.1f}' if end.seconds else ''} |"
