"""The pipeline: from the download of a corpus to a registered model."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

import components
from pipelines.stage_task import always, stage
from pipelines.training import training


@dsl.pipeline(name="cosyvoice", display_name="CosyVoice training")
def cosyvoice(
    data_root: str,
    recipe: str = "cosyvoice2",
    overrides: list[str] = [],  # noqa: B006 - KFP copies defaults
    data_url: str = "",
    pretrained_dir: str = "pretrained_models/CosyVoice2-0.5B",
    train_subsets: list[str] = [],  # noqa: B006
    dev_subsets: list[str] = [],  # noqa: B006
    test_subsets: list[str] = [],  # noqa: B006
    start_stage: int = -1,
    stop_stage: int = 7,
    instruct: str = "",
    max_reject_share: float = 0.05,
    num_processes: int = 10,
    num_utts_per_parquet: int = 1000,
    f0: str = "auto",
    reject_dir: str = "",
    model: str = "llm",
    train_engine: str = "torch_ddp",
    launcher: str = "auto",
    job: str = "",
    num_nodes: int = 1,
    gpus_per_node: int = 1,
    num_workers: int = 2,
    prefetch: int = 100,
    pin_memory: bool = True,
    use_amp: bool = True,
    checkpoint: str = "auto",
    qwen_pretrain_path: str = "auto",
    dpo: bool = False,
    ref_model: str = "",
    deepspeed_config: str = "conf/ds_stage2.json",
    deepspeed_save_states: str = "model+optimizer",
    average_num: int = 5,
    val_best: bool = True,
    mlflow_uri: str = "",
    experiment: str = "cosyflow",
    registered_model: str = "",
):
    """Trains a CosyVoice model from LibriTTS, or from speech of your own, and registers it.

    Args:
        data_root: Folder or s3:// prefix below which all stages keep their data. Every task must see it.
        recipe: Name of a file of conf/ without .yaml (cosyvoice2, cosyvoice2.tiny), or the path of a recipe.
        overrides: Settings that replace those of the recipe, e.g. ["train_conf.max_epoch=20"].
        data_url: Base URL of the subsets' archives and their checksums, or a folder that holds the subsets as LibriTTS
            trees or in Kaldi form. Empty: the recipe's.
        pretrained_dir: Folder or s3:// prefix of the pretrained models (campplus.onnx, speech_tokenizer_v2.onnx, ...).
        train_subsets: Subsets to train on. Empty: the recipe's.
        dev_subsets: Subsets to validate on. Empty: the recipe's.
        test_subsets: Subsets that are prepared and not trained on. Empty: the recipe's; ["none"]: none.
        start_stage: First stage that works. -1 download, 0 prepare, 1 speaker-embedding, 2 speech-token, 3 parquet,
            5 merge and train, 6 average, 7 export and register.
        stop_stage: Last stage that works. A stage outside the range hands on what an earlier run made.
        instruct: Instruction that is written for every utterance. Empty: none.
        max_reject_share: A stage fails when it must reject more than this share of its utterances.
        num_processes: Processes of the extraction and parquet stages.
        num_utts_per_parquet: Utterances of one parquet shard.
        f0: How f0 is measured: harvest, fast or none. auto: fast where hifigan is trained, else none.
        reject_dir: Folder or s3:// prefix with SUBSET/utt2speech_token.pt: tokens of worse speech for the same texts,
            which dpo teaches to avoid. Empty: none. A subset without such a file has no rejected speech.
        model: What to train: llm, flow or hifigan.
        train_engine: torch_ddp or deepspeed.
        launcher: Where to train: local, in the task itself; pytorchjob, in a job of the cluster; auto: in a pod a job.
        job: YAML file of settings of a training job's pods: image, devices, volumes, restarts. Empty: the task's own.
        num_nodes: Machines to train on; more than one needs a pytorchjob.
        gpus_per_node: Processes a machine, one for each GPU; 0: one process without a GPU.
        num_workers: Processes of each rank that read data.
        prefetch: Batches that each of them reads ahead.
        pin_memory: Read into memory that a GPU can copy from at full speed.
        use_amp: Compute in bfloat16 on a GPU.
        checkpoint: Weights to start from. auto: the pretrained directory's where there are any; empty: none.
        qwen_pretrain_path: Qwen2 folder that the LLM starts from. auto: the pretrained directory's CosyVoice-BlankEN.
        dpo: Train the LLM on preferences, of chosen over rejected speech; the shards need rejected speech (reject_dir).
        ref_model: Weights of the reference of dpo. Empty: those that the training starts from.
        deepspeed_config: Settings of the deepspeed engine.
        deepspeed_save_states: What deepspeed saves: model_only or model+optimizer.
        average_num: Checkpoints that are averaged.
        val_best: Average those with the lowest validation loss, not the newest.
        mlflow_uri: Tracking server and model registry. Empty: MLFLOW_TRACKING_URI of the environment.
        experiment: MLflow experiment of the run.
        registered_model: Name in the model registry. Empty: recipe and model, e.g. cosyvoice2-llm.
    """
    settings = {"recipe": recipe, "overrides": overrides}
    span = {"start_stage": start_stage, "stop_stage": stop_stage}
    place = {"data_root": data_root, **span}
    subsets = {"train_subsets": train_subsets, "dev_subsets": dev_subsets}

    chosen = {**settings, **subsets, "test_subsets": test_subsets}
    ending = components.report(data_root=data_root, **chosen, model=model)
    with dsl.ExitHandler(always("report", ending), name="run"):
        plan = always("plan", components.plan(pretrained_dir=pretrained_dir, **chosen, **span))

        with dsl.ParallelFor(items=plan.output, name="subsets") as subset:
            work = {"max_reject_share": max_reject_share, **place}
            many = {"num_processes": num_processes, **work}
            fetch = components.download(subset=subset, recipe=recipe, data_url=data_url, **place)
            downloaded = stage("download", fetch)
            prepared = stage("prepare", components.prepare(downloaded=downloaded, instruct=instruct, **work))
            speech = {"prepared": prepared, "pretrained_dir": pretrained_dir, **many}
            embeddings = stage("speaker-embedding", components.speaker_embedding(**speech))
            tokens = stage("speech-token", components.speech_token(**speech, **settings))
            write = components.parquet(
                prepared=prepared,
                embeddings=embeddings,
                tokens=tokens,
                num_utts_per_parquet=num_utts_per_parquet,
                model=model,
                f0=f0,
                reject_dir=reject_dir,
                **settings,
                **many,
            )
            shards = stage("parquet", write)

        lists = stage("merge", components.merge(parquets=dsl.Collected(shards), **settings, **subsets, **place))
        train = training(
            lists=lists,
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
            average_num=average_num,
            val_best=val_best,
            mlflow_uri=mlflow_uri,
            experiment=experiment,
            **settings,
            **place,
        )
        averaged = train.set_display_name("training").output
        exported = stage("export", components.export(averaged=averaged, model=model, **settings, **place))
        models = {"averaged": averaged, "exported": exported}
        registry = {"registered_model": registered_model, "mlflow_uri": mlflow_uri}
        stage("register", components.register(**models, **registry, **settings, **place))
