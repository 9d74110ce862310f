"""What a stage is: its place in the table, the settings that name its work, its check, and its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.errors import Problem
from cosyflow.run.record import Record
from cosyflow.stage import Manifest, StageResult, find_finished

Per = Literal["subset", "run", "part"]
"""What a stage works on: each subset, all of them, or each part of the model that is trained."""


@dataclass(frozen=True)
class Job:
    """What a stage's work is given.

    Attributes:
        name: the subset or the model.
        inputs: manifests of the stages before it, in the order of `Stage.inputs`.
        output: the folder to work in; after an interruption it is the same again.
        task_config: of a KFP task that makes pods of its own, as the fields of `dsl.TaskConfig`.
    """

    record: Record
    name: str
    inputs: tuple[Manifest, ...]
    output: str
    task_config: Mapping[str, Any] | None = None


def nothing_wrong(record: Record) -> Iterator[Problem]:
    """The check of a stage that has none."""
    yield from ()


def anything_goes(manifest: Manifest, record: Record) -> str:
    """Finished work of a stage whose key says all."""
    return ""


def any_inputs(record: Record, inputs: tuple[Manifest, ...]) -> Iterator[Problem]:
    """The check of a stage that takes what the stages before it made as it is."""
    yield from ()


def the_manifest(folder: str, record: Record) -> Manifest | None:
    """What a folder's `manifest.json` says, for a stage whose folders are finished once."""
    return find_finished(folder)


def no_files(record: Record) -> tuple[str, ...]:
    """The files of the pretrained directory that most stages read."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        name: of command, component, task and folder.
        number: what `start_stage` and `stop_stage` mean.
        makes: the name of its output in the graph.
        inputs: the stages whose manifests go in; one that works on subsets gives all of them to one that does not.
        version: of its code. It goes up when equal settings and inputs give other outputs (tests/unit/run/closures.py).
        settings: a frozen dataclass of all that names the work in addition to its inputs, for a subset or model.
        work: makes the outputs in `Job.output`.
        check: what is wrong with a run from this stage's view, before any work; it must be quick and write nothing.
        pretrained_files: names of files of the pretrained directory whose content makes its outputs.
        check_inputs: what is wrong with finished inputs, for a run that is to work on them.
        find: the manifest of finished work in a folder.
        accepts: why finished work of the right key is still not what is asked for; "" when it is.
        shared: whether its outputs are the same for all versions of CosyVoice.
        processes_outlive: whether its work is done by processes that may still end in good order when the one that
            started them was killed. They have a lease of their own, and remove what earlier ones have left.
    """

    name: str
    number: int
    per: Per
    makes: str
    inputs: tuple[str, ...]
    version: int
    settings: Callable[[Record, str, Digests], Any]
    work: Callable[[Job], StageResult]
    check: Callable[[Record], Iterator[Problem]] = nothing_wrong
    pretrained_files: Callable[[Record], tuple[str, ...]] = no_files
    check_inputs: Callable[[Record, tuple[Manifest, ...]], Iterator[Problem]] = any_inputs
    find: Callable[[str, Record], Manifest | None] = the_manifest
    accepts: Callable[[Manifest, Record], str] = anything_goes
    shared: bool = False
    processes_outlive: bool = False

    def names(self, record: Record) -> tuple[str, ...]:
        """The subsets, or the model, that the stage works on in a run."""
        if self.per == "subset":
            return tuple(record.subsets.every)
        return ("lists",) if self.per == "run" else (record.model_name,)

    def place(self, record: Record, name: str) -> str:
        """The folder of all keys of a subset or model."""
        root = record.run.data_root if self.shared else storage.join(record.run.data_root, record.version)
        return storage.join(root, self.name, name)

    def is_selected(self, record: Record) -> bool:
        return record.run.start_stage <= self.number <= record.run.stop_stage

    def is_beyond(self, record: Record) -> bool:
        return self.number > record.run.stop_stage
