"""Stage 7, register: the averaged and the exported model in the registry."""

from __future__ import annotations

import os

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.stage import Manifest, StageResult, run_stage
from cosyflow.stages.average import run_root

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
EXPORTED_FORMS = {".zip": "torchscript", ".onnx": "onnx"}


def run(averaged: Manifest, exported: Manifest, registered_model: str, mlflow_uri: str, active: bool) -> Manifest:
    """Makes a new version of the model and of each of its exports, and points the alias `candidate` to them.

    Args:
        registered_model: the model's name in the registry; empty: recipe and model, "cosyvoice2-llm". The exports'
            names are made from it: "cosyvoice2-llm-onnx".
        mlflow_uri: of the tracking server; empty: MLFLOW_TRACKING_URI of the environment.
    """
    name = registered_model or averaged.name
    tracking = mlflow_uri or os.environ.get(TRACKING_VARIABLE, "")

    def work(output: str) -> StageResult:
        from cosyflow.release.registry import register_models

        if not tracking:
            raise CosyFlowError(f"there is no registry: give mlflow_uri or set {TRACKING_VARIABLE}")
        tags = {"config_digest": averaged.key, "data_digest": averaged.inputs[0], "model_digest": averaged.digest}
        return register_models(_models(name, averaged, exported), output, tracking, tags, averaged.stand_ins)

    return run_stage(
        "register",
        averaged.name,
        run_root(averaged),
        inputs=[averaged, exported],
        settings={"registered_model": name, "mlflow_uri": tracking},
        active=active,
        work=work,
        code=["cosyflow.release.registry"],
    )


def _models(name: str, averaged: Manifest, exported: Manifest) -> dict[str, str]:
    """Registered names and the files that they stand for."""
    (weights,) = averaged.files
    models = {name: storage.join(averaged.uri, weights)}
    for file in sorted(exported.files):
        form = EXPORTED_FORMS.get(file[file.rfind(".") :])
        if form:
            models[f"{name}-{form}"] = storage.join(exported.uri, file)
    return models
