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
    data_root: str,
    recipe: str,
    overrides: list[str],
    pretrained_dir: str,
    model: str,
    train_engine: str,
    launcher: str,
    job: str,
    num_nodes: int,
    gpus_per_node: int,
    num_workers: int,
    prefetch: int,
    pin_memory: bool,
    use_amp: bool,
    checkpoint: str,
    qwen_pretrain_path: str,
    dpo: bool,
    ref_model: str,
    deepspeed_config: str,
    deepspeed_save_states: str,
    mlflow_uri: str,
    experiment: str,
    start_stage: int,
    stop_stage: int,
    task_config: dsl.TaskConfig,
    manifest: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Trains one model of a recipe, or goes on with an interrupted training."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, outputs, train

    options = train.TrainOptions(
        model=model,
        train_engine=train_engine,
        launcher=launcher,
        job=job,
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        num_workers=num_workers,
        prefetch=prefetch,
        pin_memory=pin_memory,
        use_amp=use_amp,
        checkpoint=checkpoint,
        qwen_pretrain_path=qwen_pretrain_path,
        dpo=dpo,
        ref_model=ref_model,
        deepspeed_config=deepspeed_config,
        deepspeed_save_states=deepspeed_save_states,
        mlflow_uri=mlflow_uri,
        experiment=experiment,
    )
    doing = activity("train", start_stage, stop_stage)
    made = train.run(
        Manifest.read(lists.path), data_root, recipe, overrides, pretrained_dir, options, doing, vars(task_config)
    )
    outputs.publish(made, manifest, metrics)
