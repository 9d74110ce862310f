"""The runs of Retrainings on a Kubeflow Pipelines server: looked up by content and name before they are made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import yaml

from cosyflow.errors import CosyFlowError, OutageError
from pipelines.retraining.content import compiled
from pipelines.retraining.decision import FAILED, SUCCEEDED, WORKING, Observed
from pipelines.retraining.model import Retraining

if TYPE_CHECKING:
    import kfp

MARK = "cosyflow-retraining"
"""What the description of a run of a Retraining begins with; JSON follows."""
SHOWN = 12
"""Digits of the content hash in a run's name."""
STATES = {"SUCCEEDED": SUCCEEDED, "SKIPPED": SUCCEEDED, "FAILED": FAILED, "CANCELED": FAILED, "CANCELING": FAILED}
"""The server's words; whatever else it says, the run works or is about to."""
PAGE = 100


@dataclass(frozen=True)
class Server:
    """A server's API, as one namespace sees it.

    Attributes:
        host: URL of the API.
        namespace: of the runs; None on a server without namespaces of its users.
        token: for a server that asks for one.
    """

    host: str
    namespace: str | None = None
    token: str | None = None

    def runs(self) -> list[Observed]:
        """All runs of Retrainings, the oldest first.

        Raises:
            OutageError: the server does not answer, or not yet.
            CosyFlowError: it refuses.
        """
        return sorted((run for _, run in self._listed(MARK)), key=lambda run: run.started)

    def start(self, retraining: Retraining, content: str, commit: str = "") -> str:
        """Starts the run of a content, unless one works, has succeeded, or is of the same name. Returns its id.

        A request whose answer was lost may have been accepted: the run is looked up again before it counts as failed.

        Raises:
            OutageError: the server does not answer, or not yet.
            CosyFlowError: it refuses.
        """
        title = run_title(retraining, content)
        if found := self._find(content, title):
            return found
        try:
            return self._create(retraining, content, title, commit)
        except OutageError:
            if found := self._find(content, title):
                return found
            raise

    def end(self, run: str) -> None:
        """Ends a run that works. Raises as `start` does."""
        with _answered(self.host):
            self._client().terminate_run(run)

    def state(self, run: str) -> str:
        """`working`, `succeeded` or `failed`. Raises as `start` does."""
        with _answered(self.host):
            return STATES.get(self._client().get_run(run).state, WORKING)

    def _find(self, content: str, title: str) -> str:
        """The id of the run that makes another one needless; "" when there is none."""
        for name, run in self._listed(content):
            if run.content == content and (name == title or run.state != FAILED):
                return run.id
        return ""

    def _listed(self, text: str) -> Iterator[tuple[str, Observed]]:
        """The runs of Retrainings whose description has a text in it, with their names."""
        predicate = {"operation": "IS_SUBSTRING", "key": "description", "stringValue": text}
        token = ""
        while True:
            with _answered(self.host):
                page = self._client().list_runs(
                    page_token=token,
                    page_size=PAGE,
                    namespace=self.namespace,
                    filter=json.dumps({"predicates": [predicate]}),
                )
            yield from ((run.display_name, seen) for run in page.runs or [] if (seen := _observed(run)))
            token = page.next_page_token or ""
            if not token:
                return

    def _create(self, retraining: Retraining, content: str, title: str, commit: str) -> str:
        spec = retraining.spec
        facts = {"retraining": retraining.name, "content": content, "retry": spec.retry, "commit": commit}
        documents = list(yaml.safe_load_all(compiled(retraining)))
        with _answered(self.host):
            client = self._client()
            experiment = client.create_experiment(spec.experiment, namespace=self.namespace)
            body = _body(
                documents,
                experiment.experiment_id,
                title,
                f"{MARK} {json.dumps(facts)}",
                retraining.settings.to_yaml(),
            )
            started = client._run_api.run_service_create_run(run=body)
        return str(started.run_id)

    def _client(self) -> kfp.Client:
        import kfp

        return kfp.Client(host=self.host, namespace=self.namespace or "kubeflow", existing_token=self.token)


@contextmanager
def _answered(host: str) -> Iterator[None]:
    """Within the `with` body what the client raises becomes an error that says whether trying again may help."""
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        text = f"{host}: status {error.status}: {error.body or error.reason}"
        if error.status in (None, 0, 408, 429) or error.status >= 500:
            raise OutageError(f"{text}; try again later") from error
        raise CosyFlowError(text) from error
    except (HTTPError, OSError) as error:
        raise OutageError(f"{host}: no answer from a Kubeflow Pipelines server ({error}); try again later") from error


def run_title(retraining: Retraining, content: str) -> str:
    """What the run of a content is called; another content or retry has another name."""
    return f"{retraining.name} {content[:SHOWN]} r{retraining.spec.retry}"


def _body(documents: list[Any], experiment: str, title: str, description: str, run: str) -> Any:
    import kfp_server_api

    spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    return kfp_server_api.V2beta1Run(
        display_name=title,
        description=description,
        experiment_id=experiment,
        pipeline_spec=spec,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters={"run": run}),
    )


def _observed(run: Any) -> Observed | None:
    """A run of a Retraining; None for a run of somebody else."""
    start, _, facts = (run.description or "").partition(" ")
    if start != MARK:
        return None
    try:
        known = json.loads(facts)
        retraining, content, retry = str(known["retraining"]), str(known["content"]), int(known["retry"])
    except (ValueError, KeyError, TypeError):
        return None
    started = run.created_at if run.created_at.tzinfo else run.created_at.replace(tzinfo=UTC)
    return Observed(run.run_id, retraining, content, retry, STATES.get(run.state, WORKING), started)
