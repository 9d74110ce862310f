"""Component report."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def report(
    status: dsl.PipelineTaskFinalStatus,
    data_root: str,
    recipe: str,
    overrides: list[str],
    train_subsets: list[str],
    dev_subsets: list[str],
    test_subsets: list[str],
    model: str,
    summary: dsl.Output[dsl.Markdown],
):
    """Says how the run ended, and what there is below the data root."""
    from pathlib import Path

    from cosyflow.stages import report

    state = "SUCCEEDED" if status.state == "COMPLETE" else status.state  # a server's word for it, and a local run's
    error = status.error_message or ""
    page = report.run(data_root, recipe, overrides, train_subsets, dev_subsets, test_subsets, model, state, error)
    Path(summary.path).write_text(page, encoding="utf-8")
