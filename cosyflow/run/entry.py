"""What the first and the last task of a graph call: the plan before all stages, and the report after them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from typing import Any

from cosyflow import storage
from cosyflow.credentials import protect, refuse_carried
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.progress import say
from cosyflow.run import config, declared, ends, plan, report
from cosyflow.run.ends import End
from cosyflow.run.stages import STAGES
from cosyflow.unexpected import describe

NOTHING, SOMETHING = "nothing", "something"
"""What there is to do."""


def begin(described: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Plans a run within a graph.

    Args:
        described: YAML text or URI of a run's file; "" for none.
        parameters: the flat ones; each counts where it differs from its default.

    Returns:
        `record` (URI), `subsets`, `todo` ("nothing" when all is done), and by stage, as `stamp_STAGE`, what a cache
        knows its tasks by.

    A refusal is left for the run's report and printed, a line for each problem; the process then ends with status 2,
    and with 1 after any other failure.
    """
    protect()
    run_id = ends.run_id()
    try:
        settings, origin = config.merged(parameters, config.read_run(described))
        refuse_carried(settings)
        for name, source in origin.items():
            say("plan", f"{name} = {settings[name]!r} ({source})")
        of = declared.declared_in(described)
        made = plan.plan(settings, lambda record: declared.claim(of, record, run_id) if of and run_id else None)
    except RefusalError as refusal:
        _leave_failure(described, parameters, "; ".join(map(str, refusal.problems)))
        for line in refusal.lines:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the same lines as those of the commands
        sys.exit(2)
    except CosyFlowError as error:  # a store that was there for the checks and is no more
        _leave_failure(described, parameters, str(error))
        say("plan", f"failed: {error}")
        sys.exit(1)
    except Exception as error:
        _leave_failure(described, parameters, f"{describe(error)}; its log has more")
        traceback.print_exc()  # into the task's log, whose last lines Kubeflow shows
        say("plan", f"failed: {describe(error)}")
        sys.exit(1)
    for warning in made.warnings:
        say("plan", f"warning: {warning}")
    plan.leave(made, run_id, of.facts if of else None)
    for link in made.unfinished:
        say("plan", f"to do: {link.label}")
    if not made.unfinished:
        say("plan", "all is done already: nothing to do")
    stamps = {f"stamp_{stage.replace('-', '_')}": made.stamp(stage, run_id or made.record.digest) for stage in STAGES}
    return {
        "record": made.uri,
        "subsets": list(made.record.subsets.every),
        "todo": SOMETHING if made.unfinished else NOTHING,
        **stamps,
    }


def write_report(described: str, data_root: str, run_id: str, state: str, error: str, path: str) -> None:
    """Writes the page that says how a run ended."""
    root = data_root_of(described, data_root)
    good = "SUCCEEDED" if state == "COMPLETE" else state  # a server's word for it, and a local run's
    page = report.page(root, ends.run_id() or run_id, good, error)
    storage.write_text(path, page)


def data_root_of(described: str, data_root: str) -> str:
    """Where a run's data lie, also of a run that is refused for other settings."""
    if data_root:
        return data_root
    try:
        return str(config.read_run(described).get("data_root", ""))
    except CosyFlowError:
        return ""


def _leave_failure(described: str, parameters: Mapping[str, Any], error: str) -> None:
    data_root = data_root_of(described, str(parameters.get("data_root", "")))
    if not data_root:
        return
    try:
        with storage.impatient():
            ends.leave(data_root, End("plan", "", "failed", 0.0, error))
    except CosyFlowError as trouble:
        say("plan", f"this cannot be left for the report ({trouble})")
