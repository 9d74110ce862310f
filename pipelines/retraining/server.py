"""The runs of Retrainings on a Kubeflow Pipelines server: looked up by content and name before they are made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.run.declared import Declared
from pipelines.retraining.api import Api, ConflictError, contains, equals
from pipelines.retraining.content import compiled, pipeline_digest, pipeline_name
from pipelines.retraining.decision import FAILED, SUCCEEDED, WORKING, Action, Observed, needless_by
from pipelines.retraining.model import Origin, Retraining
from pipelines.retraining.uploads import uploaded

MARK = "cosyflow-retraining"
"""What the description of a run of a Retraining begins with; JSON follows."""
SHOWN = 12
"""Digits of the content hash in a run's name."""
STATES = {"SUCCEEDED": SUCCEEDED, "SKIPPED": SUCCEEDED, "FAILED": FAILED, "CANCELED": FAILED, "CANCELING": FAILED}
"""The server's words; whatever else it says, the run works or is about to."""
CANCELED = ("CANCELED", "CANCELING")


@dataclass(frozen=True)
class Server:
    """A server's API, as one namespace sees it.

    Attributes:
        host: URL of the API.
        namespace: of the runs; None on a server without namespaces of its users.
        token: for a server that asks for one, or the file that has it.

    Every method raises:
        OutageError: the server does not answer, or not yet.
        CosyFlowError: it refuses.
    """

    host: str
    namespace: str | None = None
    token: str | Path | None = None

    @cached_property
    def _api(self) -> Api:
        return Api(self.host, self.token)

    def runs(self) -> list[Observed]:
        """All runs of Retrainings, the oldest first."""
        return sorted(self._listed(MARK), key=lambda run: run.started)

    def start(self, retraining: Retraining, action: Action, origin: Origin = Origin()) -> str:  # noqa: B008 - frozen
        """Starts the run that an action wants, unless there is one that makes it needless. Returns the id of either.

        The runs that it replaces are ended before, but not for a needless run: they would have given way to none.
        A request whose answer was lost may have been accepted: the run is looked up again before it counts as failed.
        """
        if found := self._find(retraining, action):
            return found
        for run in action.ends:
            self._end(run)
        try:
            return self._create(retraining, action, origin)
        except (OutageError, ConflictError):
            if found := self._find(retraining, action):
                return found
            raise

    def state(self, run: str) -> str:
        """`working`, `succeeded` or `failed`."""
        return STATES.get(self._api.ask(self._api.runs.run_service_get_run, run).state, WORKING)

    def error(self, run: str) -> str:
        """What the server says of a run that failed; "" for nothing."""
        found = self._api.ask(self._api.runs.run_service_get_run, run)
        return str((found.error.message if found.error else "") or "")

    def _find(self, retraining: Retraining, action: Action) -> str:
        """The id of the run that makes another one needless; "" when there is none."""
        found = needless_by(action, retraining.spec.retry, self._listed(action.content))
        return found.id if found else ""

    def _end(self, run: str) -> None:
        """Also when an attempt before this one did, or the run ended by itself: the server refuses to end it then."""
        try:
            self._api.ask(self._api.runs.run_service_terminate_run, run)
        except CosyFlowError:
            if self.state(run) == WORKING:
                raise

    def _listed(self, text: str) -> Iterator[Observed]:
        """The runs of Retrainings whose description has a text in it."""
        call = self._api.runs.run_service_list_runs
        for run in self._api.pages(call, "runs", filter=contains("description", text), **self._where):
            if seen := _observed(run):
                yield seen

    def _create(self, retraining: Retraining, action: Action, origin: Origin) -> str:
        import kfp_server_api

        text = compiled(retraining)
        version = uploaded(self._api, self.namespace, pipeline_name(text), pipeline_digest(text), text)
        facts = _facts(retraining, action, origin)
        parameters = {"run": _described(retraining, action, origin)}
        body = kfp_server_api.V2beta1Run(
            display_name=run_title(retraining, action),
            description=f"{MARK} {json.dumps(facts)}",
            experiment_id=self._experiment(retraining.spec.experiment),
            pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
                pipeline_id=version.pipeline, pipeline_version_id=version.version
            ),
            runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=parameters),
        )
        return str(self._api.ask(self._api.runs.run_service_create_run, body).run_id)

    def _experiment(self, name: str) -> str:
        import kfp_server_api

        call = self._api.experiments.experiment_service_create_experiment
        if found := self._named_experiment(name):
            return found
        try:
            body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=self.namespace)
            return str(self._api.ask(call, body).experiment_id)
        except ConflictError:
            if found := self._named_experiment(name):
                return found
            raise

    def _named_experiment(self, name: str) -> str:
        call = self._api.experiments.experiment_service_list_experiments
        found = self._api.pages(call, "experiments", filter=equals("display_name", name), **self._where)
        return next((str(one.experiment_id) for one in found), "")

    @property
    def _where(self) -> Mapping[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}


def run_title(retraining: Retraining, action: Action) -> str:
    """What the run of an action is called; another content, retry or tick has another name."""
    return f"{retraining.name} {action.content[:SHOWN]} {_attempt(retraining, action, ' ')}"


def _attempt(retraining: Retraining, action: Action, between: str) -> str:
    tick = f"{between}{action.tick.astimezone(UTC):%Y-%m-%dT%H:%MZ}" if action.tick else ""
    again = f".{action.again}" if action.again else ""
    return f"r{retraining.spec.retry}{again}{tick}"


def _described(retraining: Retraining, action: Action, origin: Origin) -> str:
    """The run's file, with what the plan knows a duplicate by."""
    attempt = _attempt(retraining, action, "-")
    declared = Declared(retraining.name, action.content, attempt, origin.repository, origin.commit)
    return retraining.settings.to_yaml() + yaml.safe_dump(declared.to_json(), sort_keys=False)


def _facts(retraining: Retraining, action: Action, origin: Origin) -> dict[str, Any]:
    known = {
        "retraining": retraining.name,
        "content": action.content,
        "retry": retraining.spec.retry,
        "commit": origin.commit,
        "repository": origin.repository,
        "tick": action.tick.isoformat() if action.tick else "",
        "again": action.again or "",
    }
    return {key: value for key, value in known.items() if value != ""}


def _observed(run: Any) -> Observed | None:
    """A run of a Retraining; None for a run of somebody else."""
    start, _, facts = (run.description or "").partition(" ")
    if start != MARK:
        return None
    try:
        known = json.loads(facts)
        retraining, content, retry = str(known["retraining"]), str(known["content"]), int(known["retry"])
        tick = datetime.fromisoformat(known["tick"]) if known.get("tick") else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    state = STATES.get(run.state, WORKING)
    again, canceled = int(known.get("again", 0)), run.state in CANCELED
    finished = _with_zone(run.finished_at) if run.finished_at and state != WORKING else None
    started = _with_zone(run.created_at)
    return Observed(run.run_id, retraining, content, retry, state, started, finished, tick, again, canceled)


def _with_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
