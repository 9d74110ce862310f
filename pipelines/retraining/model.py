"""A declared run: the resource `Retraining` (retrainings.cosyflow.dev/v1alpha1), every field once, with its checks.

The schema of the custom resource definition is made of these classes (`pipelines.retraining.schema`), so a cluster and
`python -m pipelines diff` refuse the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from components.base import IMAGES
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.run import config
from cosyflow.run.config import Run

GROUP, VERSION, KIND, PLURAL = "cosyflow.dev", "v1alpha1", "Retraining", "retrainings"
API_VERSION = f"{GROUP}/{VERSION}"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
REFERENCE = r"^[^\s@]+(:[\w.-]+|@sha256:[0-9a-f]{64})$"
LONGEST_NAME = 40
"""A run's name has the Retraining's and a part of the content hash in it."""

Name = Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=LONGEST_NAME)]
Namespace = Annotated[str, StringConstraints(pattern=DNS_LABEL, min_length=1, max_length=63)]
Reference = Annotated[str, StringConstraints(pattern=REFERENCE)]


REPOSITORY, COMMIT = f"{GROUP}/repository", f"{GROUP}/commit"
"""Annotations that say where a Retraining comes from."""


@dataclass(frozen=True)
class Origin:
    """Where a Retraining comes from; each is "" where that is not known."""

    repository: str = ""
    commit: str = ""


class Concurrency(StrEnum):
    """What newer content does while a run of older content works."""

    WAIT = "Wait"
    REPLACE = "Replace"
    ALLOW = "Allow"


class HealthyWhen(StrEnum):
    """From when on the Retraining counts as ready."""

    ACCEPTED = "accepted"
    FINISHED = "finished"
    PROMOTED = "promoted"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Schedule(_Part):
    """Times at which data and content are looked at; a tick starts nothing where both are old."""

    cron: str = Field(description="Minute, hour, day of the month, month, day of the week: '0 3 1 * *'.")
    time_zone: str = Field("Etc/UTC", description="Name of the time zone of `cron`, as 'Europe/Berlin'.")
    force: bool = Field(False, description="A tick starts a run of old content too.")

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        from cronsim import CronSim, CronSimError

        try:
            CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"{value!r} is no schedule ({error}); write five fields, as '0 3 1 * *'") from error
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no time zone; write one as 'Europe/Berlin'") from error
        return value

    def next_after(self, moment: datetime) -> datetime:
        """The first tick after a moment that has a time zone."""
        from cronsim import CronSim

        return next(CronSim(self.cron, moment.astimezone(ZoneInfo(self.time_zone))))

    def last_before(self, moment: datetime) -> datetime:
        """The last tick up to a moment that has a time zone."""
        from cronsim import CronSim

        after = moment.replace(microsecond=0) + timedelta(seconds=1)
        return next(CronSim(self.cron, after.astimezone(ZoneInfo(self.time_zone)), reverse=True))


class NewData(_Part):
    """New or changed files below the run's `data_url`."""

    quiet_seconds: int = Field(600, ge=0, description="How long nothing must have changed before a run starts.")


class Trigger(_Part):
    """What starts a run of content that has had none."""

    on_change: bool = Field(True, description="A change of the run, its images or the pipeline.")
    schedule: Schedule | None = Field(None, description="At these times.")
    on_new_data: NewData | None = Field(None, description="New speech.")
    after: Name | None = Field(None, description="Only when the newest content of this Retraining has succeeded.")


class Spec(_Part):
    """What is wanted."""

    run: dict[str, Any] = Field(description="A whole run, as `--run` takes it: docs/parameters.md.")
    images: dict[str, Reference] = Field(
        default_factory=dict, description="The reference of each image, as `make images` locks them."
    )
    experiment: str = Field("cosyflow", min_length=1, description="KFP experiment of the runs.")
    kfp_namespace: Namespace | None = Field(
        None, description="Namespace of the runs, where Pipelines knows users; else --namespace."
    )
    trigger: Trigger = Field(default_factory=Trigger, description="What starts a run.")
    suspend: bool = Field(False, description="Start nothing; what runs goes on.")
    retry: int = Field(0, ge=0, description="Raise it to run failed content again.")
    concurrency: Concurrency = Field(Concurrency.WAIT, description="What newer content does while older works.")
    healthy_when: HealthyWhen = Field(HealthyWhen.FINISHED, description="From when on it is ready.")
    history_limit: int = Field(10, ge=1, le=100, description="Runs that the status lists.")

    @field_validator("images")
    @classmethod
    def _are_known(cls, value: dict[str, str]) -> dict[str, str]:
        for image in value:
            if image not in IMAGES:
                raise ValueError(f"{image} is not one of {', '.join(IMAGES)}")
        for image in IMAGES if value else ():
            if image not in value:
                raise ValueError(f"{image} is missing; give all of {', '.join(IMAGES)}, or none")
        return value


class Metadata(BaseModel):
    """Of the resource; what else Kubernetes keeps there is not looked at."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Name
    namespace: Namespace | None = None
    annotations: dict[str, str] = Field(default_factory=dict)


class Retraining(BaseModel):
    """One resource."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    api_version: Literal["cosyflow.dev/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["Retraining"]
    metadata: Metadata
    spec: Spec
    status: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_not_after_itself(self) -> Retraining:
        if self.spec.trigger.after == self.name:
            raise ValueError("spec.trigger.after: names itself; name another Retraining")
        return self

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def origin(self) -> Origin:
        """As its annotations say."""
        known = self.metadata.annotations
        return Origin(known.get(REPOSITORY, ""), known.get(COMMIT, ""))

    @property
    def settings(self) -> Run:
        """The run. Raises RefusalError with all that is wrong with its settings."""
        return config.from_parameters(self.spec.run)


def read(content: Mapping[str, Any], source: str) -> Retraining:
    """A Retraining of a YAML document.

    Args:
        source: file (or file and number) for messages.

    Raises:
        RefusalError: a line for each field that is wrong, the settings of its run included.
    """
    try:
        found = Retraining.model_validate(content)
    except ValidationError as error:
        raise RefusalError(_problems(error, source)) from error
    problems = [Problem(f"{source}: spec.run.{problem.setting}", problem.text) for problem in _wrong(found)]
    if problems:
        raise RefusalError(problems)
    return found


def _wrong(found: Retraining) -> Iterator[Problem]:
    from cosyflow.run.record import Record

    try:
        Record.of(found.settings)
    except RefusalError as refusal:
        yield from refusal.problems
    except CosyFlowError as error:
        yield Problem("recipe", str(error))


def _problems(error: ValidationError, source: str) -> Iterator[Problem]:
    for entry in error.errors():
        field = ".".join(str(part) for part in entry["loc"]) or KIND
        text = entry["msg"].removeprefix("Value error, ")
        if entry["type"] == "extra_forbidden":
            text = "no such field; remove it, or correct its name"
        elif entry["type"] == "missing":
            text = "is missing; give it"
        yield Problem(f"{source}: {field}", text if ";" in text else f"{text}; change it")
