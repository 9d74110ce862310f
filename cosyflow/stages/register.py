"""Stage 7, register: the averaged and the exported model in the registry."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from cosyflow import storage
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe
from cosyflow.stages.selected import run_selected

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
EXPORTED_FORMS = {".zip": "torchscript", ".onnx": "onnx", ".pt": "generator"}


def run(
    averaged: Manifest,
    exported: Manifest,
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    registered_model: str,
    mlflow_uri: str,
    activity: Activity,
) -> Manifest:
    """Makes a new version of the model and of each of its exports, and points the alias `candidate` to them.

    Args:
        registered_model: the model's name in the registry; empty: recipe and model, "cosyvoice2-llm". The exports'
            names are made from it: "cosyvoice2-llm-onnx".
        mlflow_uri: of the tracking server; empty: MLFLOW_TRACKING_URI of the environment.
    """
    name = registered_model or averaged.name
    tracking = mlflow_uri or os.environ.get(TRACKING_VARIABLE, "")

    def work(output: str) -> StageResult:
        from cosyflow.release.register import register_models

        tags = {"config_digest": averaged.key, "data_digest": averaged.inputs[0], "model_digest": averaged.digest}
        return register_models(_models(name, averaged, exported), output, tracking, tags, stand_ins=averaged.stand_ins)

    return run_selected(
        "register",
        averaged.name,
        storage.join(data_root, load_recipe(recipe, overrides).version),
        inputs=[averaged, exported],
        settings={"registered_model": name, "mlflow_uri": tracking},
        activity=activity,
        work=work,
        code=["cosyflow.release.register"],
    )


def _models(name: str, averaged: Manifest, exported: Manifest) -> dict[str, str]:
    """Registered names and the files that they stand for.

    A form of export that has one file gives its name to it ("cosyvoice2-llm-onnx"), else each file gives its own
    ("cosyvoice2-flow-flow.encoder.fp16").
    """
    (weights,) = averaged.files
    models = {name: storage.join(averaged.uri, weights)}
    by_form: dict[str, list[str]] = {form: [] for form in EXPORTED_FORMS.values()}
    for file in sorted(exported.files):
        extension = PurePosixPath(file).suffix
        if extension in EXPORTED_FORMS:
            by_form[EXPORTED_FORMS[extension]].append(file)
    for form, files in by_form.items():
        for file in files:
            last = form if len(files) == 1 else PurePosixPath(file).stem
            models[f"{name}-{last}"] = storage.join(exported.uri, file)
    return models
