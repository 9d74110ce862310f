"""Stage 7, register: the averaged and the exported model in the registry."""

from __future__ import annotations

from cosyflow.stage import Manifest, StageResult, run_stage
from cosyflow.stages.average import run_root


def run(
    averaged: Manifest, exported: Manifest, registered_model: str, mlflow_uri: str, alias: str, active: bool
) -> Manifest:
    """Makes a new version of a registered model, and points the alias to it.

    Args:
        registered_model: its name in the registry; empty: recipe and model, "cosyvoice2-llm".
        mlflow_uri: of the tracking server; empty: MLFLOW_TRACKING_URI.
    """
    name = registered_model or averaged.name

    def work(output: str) -> StageResult:
        from cosyflow.release.register import register_model

        return register_model(averaged, exported, output, name=name, mlflow_uri=mlflow_uri, alias=alias)

    return run_stage(
        "register",
        averaged.name,
        run_root(averaged),
        inputs=[averaged, exported],
        settings={"registered_model": name, "mlflow_uri": mlflow_uri, "alias": alias},
        active=active,
        work=work,
        code=["cosyflow.release.register"],
    )
