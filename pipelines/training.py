"""The training as a pipeline of its own, nested in the whole: train one model, average its best checkpoints."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

import components
from pipelines.stage_task import stage


@dsl.pipeline(name="cosyvoice-training", display_name="Training")
def training(
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
    average_num: int,
    val_best: bool,
    mlflow_uri: str,
    experiment: str,
    start_stage: int,
    stop_stage: int,
) -> dsl.Model:
    """Trains one model and averages its best checkpoints."""
    span = {"start_stage": start_stage, "stop_stage": stop_stage}
    train = components.train(
        lists=lists,
        data_root=data_root,
        recipe=recipe,
        overrides=overrides,
        pretrained_dir=pretrained_dir,
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
        **span,
    )
    average = components.average(
        trained=stage("train", train),
        data_root=data_root,
        recipe=recipe,
        overrides=overrides,
        model=model,
        average_num=average_num,
        val_best=val_best,
        **span,
    )
    return stage("average", average)
