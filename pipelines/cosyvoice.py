"""The pipeline: from the download of a corpus to a registered model."""

# No postponed annotations here: KFP reads them as types.
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineArtifactChannel

import components
from cosyflow.run.config import PARAMETERS, default_of, kind_of
from cosyflow.run.entry import SOMETHING
from pipelines.options import meaning
from pipelines.stage_task import RESOURCES, always, stage

RUN = "run"
TITLE = "Trains a CosyVoice model from LibriTTS, or from speech of your own, and registers it."
RUN_MEANING = "A whole run as YAML text, or the address of a file of it. Other parameters count where they are changed."


def build_pipeline(subsets_at_once: int, resources: Mapping[str, Mapping[str, str]] | None = None) -> BaseComponent:
    """The pipeline, for a server that works on at most `subsets_at_once` subsets at the same time.

    Args:
        resources: what a stage's pod asks for in addition to, or in place of, `pipelines.stage_task.RESOURCES`; None:
            nothing is asked for, as on one machine.
    """

    def wanted(name: str) -> Mapping[str, str]:
        return {} if resources is None else {**RESOURCES[name], **resources.get(name, {})}

    def work(name: str, **inputs: object) -> PipelineArtifactChannel:
        return stage(name, getattr(components, name.replace("-", "_"))(**inputs), wanted(name))

    @dsl.pipeline(name="cosyvoice-training", display_name="Train one part")
    def training(lists: dsl.Input[dsl.Dataset], record: str, stamp_train: str, stamp_average: str) -> dsl.Model:
        """Trains one part of the model and averages its best checkpoints."""
        checkpoints = work("train", record=record, stamp=stamp_train, lists=lists)
        return work("average", record=record, stamp=stamp_average, checkpoints=checkpoints)

    @dsl.pipeline(name="cosyvoice-stages", display_name="All stages")
    def stages(
        record: str,
        subsets: list[str],
        todo: str,
        stamp_download: str,
        stamp_prepare: str,
        stamp_speaker_embedding: str,
        stamp_speech_token: str,
        stamp_parquet: str,
        stamp_merge: str,
        stamp_train: str,
        stamp_average: str,
        stamp_export: str,
        stamp_register: str,
    ) -> None:
        """The stages from the download to the registry, unless all of it is done."""
        with dsl.If(todo == SOMETHING, name="something to do"):
            with dsl.ParallelFor(items=subsets, name="each subset", parallelism=subsets_at_once) as subset:
                speech = work("download", record=record, stamp=stamp_download, subset=subset)
                kaldi_files = work("prepare", record=record, stamp=stamp_prepare, speech=speech)
                embeddings = work(
                    "speaker-embedding", record=record, stamp=stamp_speaker_embedding, kaldi_files=kaldi_files
                )
                tokens = work("speech-token", record=record, stamp=stamp_speech_token, kaldi_files=kaldi_files)
                shards = work(
                    "parquet",
                    record=record,
                    stamp=stamp_parquet,
                    kaldi_files=kaldi_files,
                    embeddings=embeddings,
                    tokens=tokens,
                )
            lists = work("merge", record=record, stamp=stamp_merge, shards=dsl.Collected(shards))
            train = training(lists=lists, record=record, stamp_train=stamp_train, stamp_average=stamp_average)
            averaged = train.set_display_name("train one part").output
            exported = work("export", record=record, stamp=stamp_export, averaged_model=averaged)
            work("register", record=record, stamp=stamp_register, averaged_model=averaged, exported_model=exported)

    @dsl.pipeline(name="cosyvoice", display_name="CosyVoice training")
    @_with_the_parameters_of_a_run
    def cosyvoice(**parameters: object) -> None:
        ending = components.report(
            run=parameters[RUN], data_root=parameters["data_root"], run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER
        )
        with dsl.ExitHandler(always("report", ending, wanted("report")), name="run, then report"):
            plan = always("plan", components.plan(**parameters), wanted("plan"))
            stages(**plan.outputs).set_display_name("all stages")

    return cosyvoice


def _with_the_parameters_of_a_run(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a function that takes keywords the signature and the documentation that KFP reads parameters from."""
    kinds: dict[type, Any] = {list: list[str]}
    parameters = [inspect.Parameter(RUN, inspect.Parameter.POSITIONAL_OR_KEYWORD, default="", annotation=str)]
    for name in PARAMETERS:
        kind, default = kind_of(name), default_of(name)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=list(default) if kind is list else default,
                annotation=kinds.get(kind, kind),
            )
        )
    names = [parameter.name for parameter in parameters]

    def called(*values: object) -> None:
        function(**dict(zip(names, values, strict=True)))

    called.__name__ = function.__name__
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    meanings = {RUN: RUN_MEANING, **{name: meaning(name) for name in PARAMETERS}}
    lines = [f"    {name}: {text}" for name, text in meanings.items()]
    called.__doc__ = "\n".join([TITLE, "", "Args:", *lines])
    return called
