"""How a task of the graph stands for a stage."""

from __future__ import annotations

from kfp.dsl.pipeline_task import PipelineTask

from cosyflow.progress import STAGE_VARIABLE
from cosyflow.stages import position


def stage(task: PipelineTask, name: str) -> PipelineTask:
    """Names a task after its stage. KFP's cache stays off: stages know what is done, and notice what was deleted."""
    return task.set_display_name(name).set_env_variable(STAGE_VARIABLE, position(name)).set_caching_options(False)
