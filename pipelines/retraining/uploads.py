"""The compiled pipeline as a version on the server, named by its hash: the UI shows which runs have the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cosyflow.errors import CosyFlowError
from pipelines.retraining.api import Api, ConflictError, equals

SHOWN = 16
"""Digits of the hash in the version's name."""


@dataclass(frozen=True)
class Version:
    """A version of a pipeline that the server has."""

    pipeline: str
    version: str


def uploaded(api: Api, namespace: str | None, name: str, digest: str, text: str) -> Version:
    """The version of a compiled pipeline, which is uploaded unless the server has it. Raises as `Api.ask` does.

    Args:
        name: of the pipeline.
        digest: of the version, whose first digits are its name.
        text: IR YAML.
    """
    pipeline = _pipeline(api, namespace, name)
    shown = digest[:SHOWN]
    if found := _version(api, pipeline, shown):
        return Version(pipeline, found)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.yaml")
        path.write_text(text, encoding="utf-8")
        try:
            made = api.ask(api.uploads.upload_pipeline_version, str(path), name=shown, pipelineid=pipeline)
        except CosyFlowError:  # another one was quicker, or the answer was lost
            if found := _version(api, pipeline, shown):
                return Version(pipeline, found)
            raise
    return Version(pipeline, str(made.pipeline_version_id))


def _pipeline(api: Api, namespace: str | None, name: str) -> str:
    import kfp_server_api

    if found := _named(api, namespace, name):
        return found
    body = kfp_server_api.V2beta1Pipeline(display_name=name, name=name, namespace=namespace)
    try:
        return str(api.ask(api.pipelines.pipeline_service_create_pipeline, body).pipeline_id)
    except ConflictError:
        if found := _named(api, namespace, name):
            return found
        raise


def _named(api: Api, namespace: str | None, name: str) -> str:
    where = {"namespace": namespace} if namespace else {}
    call = api.pipelines.pipeline_service_list_pipelines
    return next(
        (str(one.pipeline_id) for one in api.pages(call, "pipelines", filter=equals("name", name), **where)), ""
    )


def _version(api: Api, pipeline: str, name: str) -> str:
    call = api.pipelines.pipeline_service_list_pipeline_versions
    found = api.pages(call, "pipeline_versions", pipeline, filter=equals("name", name))
    return next((str(one.pipeline_version_id) for one in found), "")
