"""How a task of the graph stands for a stage."""

from __future__ import annotations

from kfp.dsl.pipeline_channel import PipelineArtifactChannel
from kfp.dsl.pipeline_task import PipelineTask

from cosyflow.progress import STAGE_VARIABLE
from cosyflow.stages import position


def stage(name: str, task: PipelineTask) -> PipelineArtifactChannel:
    """Names a task after its stage. Returns the manifest that it makes.

    KFP's cache stays off: a stage itself knows what is done already, and notices what was deleted.
    """
    task.set_display_name(name).set_env_variable(STAGE_VARIABLE, position(name)).set_caching_options(False)
    return task.outputs["manifest"]
