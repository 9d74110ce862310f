"""Which checkpoint an interrupted run goes on from, and what it holds."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cosyflow import storage
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.training.checkpoints import STATE_FORMAT, Checkpoint, Position, list_checkpoints
from cosyflow.training.objective import TrainingData
from cosyflow.training.ranks import Ranks

Teller = Callable[[str], None]


@dataclass(frozen=True)
class Resumption:
    """What a run goes on from."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    position: Position
    fingerprint: str
    tag: str
    world_size: int | None = None
    """Ranks of the run that wrote it; None when it does not tell."""


class UnusableError(CosyFlowError):
    """A checkpoint that a run cannot go on from, and why."""


def load(checkpoint: Checkpoint, verify: bool = True) -> Resumption:
    """Reads all that an exact resume needs.

    Args:
        verify: looks for damage inside the files too, which takes another reading.

    Raises:
        UnusableError: the state is not there, or files are damaged or of another version of CosyFlow.
    """
    if not checkpoint.has_state:
        raise UnusableError(f"{storage.name(checkpoint.state)} is not there")
    if not checkpoint.record:
        raise UnusableError(f"{checkpoint.tag}.yaml is not the record of a checkpoint")
    state = _read_tensors(checkpoint.state, verify)
    if state.get("format") != STATE_FORMAT:
        raise UnusableError(f"{storage.name(checkpoint.state)} is of another version of CosyFlow")
    try:
        position, fingerprint, optimizer = Position(**state["position"]), state["fingerprint"], state["optimizer"]
    except (KeyError, TypeError) as error:
        raise UnusableError(f"{storage.name(checkpoint.state)} is of another version of CosyFlow ({error})") from error
    weights = _read_tensors(checkpoint.weights, verify)
    world_size = checkpoint.record.get("world_size")
    return Resumption(weights, optimizer, position, fingerprint, checkpoint.tag, world_size)


def find_newest(directory: str, tell: Teller, whole_epochs: bool = False) -> tuple[Checkpoint, Resumption] | None:
    """The newest checkpoint that a run can go on from; None when the folder holds none at all.

    Args:
        tell: is told in one line why newer ones are passed over.
        whole_epochs: takes none within an epoch.

    Raises:
        RefusalError: checkpoints are there, and a run can go on from none of them.
    """
    there = [c for c in reversed(list_checkpoints(directory)) if c.is_whole_epoch or not whole_epochs]
    passed: list[str] = []
    for checkpoint in there:
        try:
            resumption = load(checkpoint)
        except UnusableError as error:
            passed.append(f"{checkpoint.tag} cannot be continued: {error}")
            continue
        if passed:
            more = f" (and {len(passed) - 1} more)" if len(passed) > 1 else ""
            tell(f"{passed[0]}{more}; takes {checkpoint.tag} instead")
        return checkpoint, resumption
    if there:
        raise RefusalError([nothing_to_continue(there[0], passed[0])])
    return None


def nothing_to_continue(newest: Checkpoint, reason: str) -> Problem:
    """What is said of a folder with checkpoints that no run can go on from."""
    ways = f"start from its weights (--checkpoint {newest.weights} with another --model_dir), or bring back"
    return Problem("model_dir", f"{newest.directory}: {reason}; {ways} {storage.name(newest.state)}")


def share_newest(directory: str, ranks: Ranks, tell: Teller, whole_epochs: bool = False) -> Resumption | None:
    """What `find_newest` gives, which the first rank chooses for all."""
    found = find_newest(directory, tell, whole_epochs) if ranks.is_first else None
    chosen = ranks.share(lambda: found[0] if found else None)
    if chosen is None or found is not None:
        return found[1] if found else None
    return load(chosen, verify=False)


def fit_to_ranks(
    resumption: Resumption | None, data: TrainingData, directory: str, ranks: Ranks, tell: Teller
) -> Resumption | None:
    """The resumption; when it is within an epoch of another number of ranks, that of the newest whole epoch.

    Each rank has its own batches, so within an epoch nobody else can go on with them. Data that differ in anything else
    are left for the loop to refuse.

    Raises:
        CosyFlowError: there is no whole epoch to go back to.
    """
    if resumption is None or not resumption.position.batch:
        return resumption
    epoch, before = resumption.position.epoch, resumption.world_size
    if before in (None, ranks.world_size) or resumption.fingerprint != data.fingerprint(epoch, before):
        return resumption
    told = f"{resumption.tag}: {before} processes were within an epoch, and cannot be followed there by another number"
    whole = share_newest(directory, ranks, tell, whole_epochs=True)
    if whole is None:
        raise CosyFlowError(
            f"{told} ({ranks.world_size}), and no epoch is whole yet to go back to; start {before} processes, or start"
            f" from its weights (--checkpoint {storage.join(directory, resumption.tag)}.pt with another --model_dir)"
        )
    tell(f"{told} ({ranks.world_size}): goes back to {whole.tag}")
    return whole


def _read_tensors(uri: str, verify: bool) -> dict[str, Any]:
    with storage.local_copy(uri) as path:
        try:
            if verify:  # torch.load does not look at the checksums
                with zipfile.ZipFile(path) as archive:
                    damaged = archive.testzip()
                if damaged:
                    raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # torch.load raises many kinds for a damaged file
            reason = " ".join(str(error).split())[:200]
            raise UnusableError(f"{storage.name(uri)} is damaged or not a checkpoint ({reason})") from error
    return content
