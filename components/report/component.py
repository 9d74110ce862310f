"""Component report."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def report(
    status: dsl.PipelineTaskFinalStatus,
    run: str,
    data_root: str,
    run_id: str,
    report: dsl.Output[dsl.Markdown],
) -> None:
    """Says how the run ended, and what each of its tasks made or reused."""
    from cosyflow.run.entry import write_report

    write_report(run, data_root, run_id, status.state, status.error_message or "", report.path)
