"""How far a run is, by what its tasks left below the data root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.progress import say
from cosyflow.run.config import Run
from cosyflow.run.ends import PLAN, End, read_ends
from cosyflow.run.record import Record
from cosyflow.run.report import in_order, loss_lines, missing_ends, registry_lines
from cosyflow.run.stages import STAGES


@dataclass(frozen=True)
class Progress:
    """What is known of a run; what is not known is empty.

    Attributes:
        stage: number, of how many, and name of the stage that works or has failed: "6/10 merge".
        reason: why it failed, with the stage and what it worked on.
        losses: of the training, in words.
        registered: "NAME version N".
    """

    stage: str = ""
    reason: str = ""
    losses: tuple[str, ...] = ()
    registered: tuple[str, ...] = ()


def progress_of(settings: Run, run: str) -> Progress:
    """How far a run is; where its data root cannot be read now, nothing is known."""
    try:
        with storage.impatient():
            ends, uri = read_ends(settings.data_root, run)
        record = Record.of(settings)
    except CosyFlowError as error:
        say("reconcile", f"what run {run} has left cannot be read: {error}")
        return Progress()
    return _progress(ends, record, is_planned=bool(uri))


def _progress(ends: Sequence[End], record: Record, is_planned: bool) -> Progress:
    selected = [name for name, stage in STAGES.items() if stage.is_selected(record)]
    failed = [end for end in in_order(ends) if end.state == "failed"]
    missing = {label.partition(" ")[0] for label in missing_ends(ends, record)}
    unfinished = [end.stage for end in failed] or [name for name in selected if name in missing]
    if not (is_planned or failed):
        unfinished = [PLAN]
    manifests = [manifest for end in in_order(ends) if (manifest := end.read_manifest()) is not None]
    return Progress(
        _position(unfinished[0] if unfinished else selected[-1], selected),
        "; ".join(f"{f'{end.stage} {end.name}'.strip()}: {end.error}" for end in failed),
        tuple(" ".join(line.split()) for manifest in manifests for line in loss_lines(manifest)),
        tuple(" ".join(line.split()[1:]) for manifest in manifests for line in registry_lines(manifest)),
    )


def _position(name: str, selected: Sequence[str]) -> str:
    number = selected.index(name) + 1 if name in selected else 0
    return f"{number}/{len(selected)} {name}"
