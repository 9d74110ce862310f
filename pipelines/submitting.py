"""Sends the compiled pipeline to a Kubeflow Pipelines server."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from datetime import datetime
from pathlib import Path

from cosyflow.errors import CosyFlowError
from cosyflow.run.config import Run
from cosyflow.run.record import UI_VARIABLE
from pipelines.compiling import compile_pipelines


def submit(
    run: Run,
    host: str,
    namespace: str | None,
    token: str | None,
    experiment: str,
    run_name: str | None,
    image_lock: Path | None,
) -> str:
    """Starts a run. Returns the address of its page in the UI.

    Args:
        run: whose file the graph gets as its parameter `run`; resources and subsets at once are compiled in.
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
        (package,) = compile_pipelines(Path(folder), image_lock, run=run)
        try:
            client = kfp.Client(host=host, namespace=namespace or "kubeflow", existing_token=token)
            with contextlib.redirect_stdout(io.StringIO()):  # it prints addresses of the API, which are no pages
                started = client.create_run_from_pipeline_package(
                    str(package),
                    arguments={"run": run.to_yaml()},
                    run_name=run_name or run_title(run),
                    experiment_name=experiment,
                    namespace=namespace,
                )
        except ApiException as error:
            raise CosyFlowError(f"{host}: refused with status {error.status}: {error.body or error.reason}") from error
        except HTTPError as error:
            raise CosyFlowError(f"{host}: no answer from a Kubeflow Pipelines server ({error})") from error
    return f"{ui_address(run, host)}/#/runs/details/{started.run_id}"


def ui_address(run: Run, host: str) -> str:
    """Where the UI is: the run's setting, else KFP_UI_URL, else the API's host, where a proxy serves both."""
    return (run.ui_url or os.environ.get(UI_VARIABLE, "") or host).rstrip("/")


def run_title(run: Run) -> str:
    """What the run is called in lists: "cosyvoice2.tiny llm, 2026-11-29 15:37"."""
    return f"{Path(run.recipe).name.removesuffix('.yaml')} {run.model}, {datetime.now().astimezone():%Y-%m-%d %H:%M}"
