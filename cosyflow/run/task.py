"""A task of the graph: what a component calls, and what it hands to Kubeflow."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.credentials import protect
from cosyflow.errors import CosyFlowError
from cosyflow.launch.own_pod import SUBSET_LABEL, label_own_pod
from cosyflow.processes import make_user_known
from cosyflow.progress import say
from cosyflow.run import ends, execute
from cosyflow.run.chain import inputs_of
from cosyflow.run.ends import End
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from cosyflow.unexpected import describe


class Artifact(Protocol):
    """The part of kfp.dsl.Artifact that is used here."""

    path: str
    metadata: dict[str, Any]


class Metrics(Protocol):
    """The part of kfp.dsl.Metrics that is used here."""

    def log_metric(self, metric: str, value: float) -> None: ...


def run_stage(
    stage: str,
    record: str,
    inputs: Sequence[Artifact],
    made: Artifact,
    metrics: Metrics,
    subset: str = "",
    task_config: Mapping[str, Any] | None = None,
) -> None:
    """Does a stage's work in a run, or reuses what is there, and describes it in the graph.

    Args:
        record: URI of the run's record.
        inputs: artifacts that hold the manifests of the stages before it, in the order of `Stage.inputs`.
        made: gets the manifest.
        subset: what a stage without inputs works on.
        task_config: what the task was given for pods of its own, as the fields of `dsl.TaskConfig`.

    A failure is left for the run's report and shown in one line; the process then ends with status 1.
    """
    make_user_known()
    protect()
    try:
        found = Record.read(record)
        manifests = [Manifest.read(artifact.path) for artifact in inputs]
    except CosyFlowError as error:  # without them nobody knows where an end is looked for
        say(f"{stage} {subset}".strip(), f"failed: {error}")
        sys.exit(1)
    name = subset or _name(stage, found, manifests)
    if STAGES[stage].per == "subset" and (trouble := label_own_pod(SUBSET_LABEL, name)):
        say(f"{stage} {name}", trouble)
    start = time.monotonic()
    try:
        manifest = _work(stage, found, name, manifests, task_config)
        ends.leave(found.run.data_root, End.of(manifest))
    except CosyFlowError as error:
        ends.leave(found.run.data_root, End(stage, name, "failed", round(time.monotonic() - start, 3), str(error)))
        say(f"{stage} {name}", f"failed: {error}")
        sys.exit(1)
    except BaseException as error:
        reason = f"{describe(error)}; its log has more"
        ends.leave(found.run.data_root, End(stage, name, "failed", round(time.monotonic() - start, 3), reason))
        if not isinstance(error, Exception):
            raise
        traceback.print_exc()  # into the task's log, whose last lines Kubeflow shows
        say(f"{stage} {name}", f"failed: {describe(error)}")
        sys.exit(1)
    _describe(manifest, made, metrics)


def _name(stage: str, record: Record, manifests: Sequence[Manifest]) -> str:
    if STAGES[stage].per == "subset":
        return manifests[0].name
    return STAGES[stage].names(record)[0]


def _work(
    stage: str, record: Record, name: str, manifests: Sequence[Manifest], task_config: Mapping[str, Any] | None
) -> Manifest:
    definition = STAGES[stage]
    if definition.per == "run":  # it is given those of all subsets, in any order
        wanted = [subset for _, subset in inputs_of(definition, name, record)]
        manifests = sorted(
            (manifest for manifest in manifests if manifest.name in wanted), key=lambda each: wanted.index(each.name)
        )
    if any(execute.is_skipped(manifest) for manifest in manifests):
        return execute.skipped(definition, name)
    try:
        work = execute.find_work(definition, record, name, manifests, Digests(record.digests))
    except CosyFlowError:
        if definition.is_beyond(record):  # what names its work, a model of another stage, need not be there
            return execute.skipped(definition, name)
        raise
    if work.finished is None and definition.is_beyond(record):
        return execute.skipped(definition, name)
    return execute.execute(work, record, task_config)


def _describe(manifest: Manifest, made: Artifact, metrics: Metrics) -> None:
    """Writes the manifest to the artifact's file and describes it in the graph."""
    storage.write_text(made.path, manifest.to_json())
    made.metadata.update(
        stage=manifest.stage,
        name=manifest.name,
        uri=manifest.uri,
        digest=manifest.digest,
        reused=manifest.reused,
        stand_ins=manifest.stand_ins,
    )
    for name, value in {**manifest.details, **manifest.counts, "seconds": manifest.seconds}.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            metrics.log_metric(name, float(value))
