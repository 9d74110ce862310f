"""Sends the compiled pipeline to a Kubeflow Pipelines server."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosyflow.errors import CosyFlowError
from pipelines.compiling import compile_pipelines


def submit(
    parameters: Mapping[str, Any],
    host: str,
    namespace: str | None,
    token: str | None,
    experiment: str,
    run_name: str | None,
    image_lock: Path | None,
) -> str:
    """Starts a run. Returns where it can be watched.

    Args:
        host: URL of the server's API.
        token: bearer token for a server that asks for one.
        experiment: KFP experiment of the run; it is made when it does not exist.

    Raises:
        CosyFlowError: the server cannot be reached or refuses the run.
    """
    import kfp
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    with tempfile.TemporaryDirectory() as folder:
        (package,) = compile_pipelines(Path(folder), image_lock)
        try:
            client = kfp.Client(host=host, namespace=namespace or "kubeflow", existing_token=token)
            run = client.create_run_from_pipeline_package(
                str(package),
                arguments=dict(parameters),
                run_name=run_name,
                experiment_name=experiment,
                namespace=namespace,
                enable_caching=False,
            )
        except ApiException as error:
            raise CosyFlowError(f"{host}: refused with status {error.status}: {error.body or error.reason}") from error
        except HTTPError as error:
            raise CosyFlowError(f"{host}: no answer from a Kubeflow Pipelines server ({error})") from error
    return f"{host.rstrip('/')}/#/runs/details/{run.run_id}"
