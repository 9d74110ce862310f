"""Component train."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(
    image="train",
    task_config_passthroughs=[
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        dsl.TaskConfigField.KUBERNETES_AFFINITY,
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
    ],
)
def train(
    lists: dsl.Input[dsl.Dataset],
    record: str,
    stamp: str,
    task_config: dsl.TaskConfig,
    checkpoints: dsl.Output[dsl.Model],
    training_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Trains one model of a recipe, or goes on with an interrupted training."""
    from cosyflow.run.task import run_stage

    run_stage("train", record, [lists], checkpoints, training_metrics, task_config=vars(task_config))
