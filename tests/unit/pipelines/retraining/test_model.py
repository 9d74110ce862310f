"""What a Retraining may say: wrong ones are refused with the field that is wrong, by command and by schema alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow.errors import RefusalError
from pipelines.retraining.files import read_retrainings
from pipelines.retraining.model import Retraining, read
from pipelines.retraining.schema import definition

CHECKOUT = Path(__file__).resolve().parents[4]
RUN = {"data_root": "s3://bucket/data", "recipe": "cosyvoice2.tiny"}
IMAGES = {name: f"registry.example/cosyflow-{name}:1" for name in ("base", "extract", "train")}


def resource(spec: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    plain = {
        "apiVersion": "cosyflow.dev/v1alpha1",
        "kind": "Retraining",
        "metadata": {"name": "voice"},
        "spec": {"run": RUN, **(spec or {})},
    }
    return {**plain, **changes}


WRONG: list[tuple[dict[str, Any], str]] = [
    (resource(apiVersion="cosyflow.dev/v1"), "apiVersion"),
    (resource(metadata={"name": "Voice"}), "metadata.name"),
    (resource(metadata={"name": "v" * 41}), "metadata.name"),
    (resource(metadata={}), "metadata.name"),
    (resource(spec={"run": "cosyvoice2"}), "spec.run"),
    (resource(spec={"run": {**RUN, "recipe": "cosyvoice9"}}), "spec.run.recipe"),
    (resource(spec={"run": {**RUN, "recpie": "cosyvoice2"}}), "spec.run.recpie"),
    (resource(spec={"run": {**RUN, "num_workers": -1}}), "spec.run.num_workers"),
    (resource(spec={"run": {**RUN, "num_workers": "two"}}), "spec.run.num_workers"),
    (resource(spec={"run": {"recipe": "cosyvoice2.tiny"}}), "spec.run.data_root"),
    (resource(spec={"run": {**RUN, "data_root": "data"}}), "spec.run.data_root"),
    (resource(spec={"run": {**RUN, "train_subsets": ["a", "a"]}}), "spec.run.train_subsets"),
    (resource(spec={"run": {**RUN, "start_stage": 9}}), "spec.run.start_stage"),
    (resource(spec={"run": {**RUN, "overrides": ["train_conf.max_epoch=soon"]}}), "spec.run.train_conf.max_epoch"),
    (resource(spec={"images": {"base": "registry.example/base:1"}}), "spec.images"),
    (resource(spec={"images": {**IMAGES, "serve": "registry.example/serve:1"}}), "spec.images"),
    (resource(spec={"images": {**IMAGES, "train": "no tag"}}), "spec.images.train"),
    (resource(spec={"experiment": ""}), "spec.experiment"),
    (resource(spec={"kfpNamespace": "Team A"}), "spec.kfpNamespace"),
    (resource(spec={"suspend": "perhaps"}), "spec.suspend"),
    (resource(spec={"retry": -1}), "spec.retry"),
    (resource(spec={"retry": "often"}), "spec.retry"),
    (resource(spec={"concurrency": "Forbid"}), "spec.concurrency"),
    (resource(spec={"healthyWhen": "green"}), "spec.healthyWhen"),
    (resource(spec={"historyLimit": 0}), "spec.historyLimit"),
    (resource(spec={"trigger": {"onCommit": True}}), "spec.trigger.onCommit"),
    (resource(spec={"trigger": {"schedule": {"cron": "every day"}}}), "spec.trigger.schedule.cron"),
    (resource(spec={"trigger": {"schedule": {"cron": "0 25 * * *"}}}), "spec.trigger.schedule.cron"),
    (resource(spec={"trigger": {"schedule": {"cron": "0 3 * * *", "timeZone": "Mars/Olympus"}}}), "schedule.timeZone"),
    (resource(spec={"trigger": {"schedule": {"timeZone": "Etc/UTC"}}}), "spec.trigger.schedule.cron"),
    (resource(spec={"trigger": {"onNewData": {"quietSeconds": -5}}}), "spec.trigger.onNewData.quietSeconds"),
    (resource(spec={"trigger": {"after": "Other One"}}), "spec.trigger.after"),
    (resource(spec={"trigger": {"after": "voice"}}), "spec.trigger.after"),
    (resource(specs={}), "specs"),
]


@pytest.mark.parametrize(
    ("content", "field"), WRONG, ids=[f"{number}-{field}" for number, (_, field) in enumerate(WRONG)]
)
def test_a_wrong_one_is_refused_by_the_field(content: dict[str, Any], field: str) -> None:
    with pytest.raises(RefusalError) as refused:
        read(content, "voice.yaml")
    assert any(field in problem.setting or field in problem.text for problem in refused.value.problems)
    assert all(problem.setting.startswith("voice.yaml") for problem in refused.value.problems)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(RefusalError) as refused:
        read(resource(spec={"retry": -1, "concurrency": "Forbid", "suspend": 7}), "voice.yaml")
    assert len(refused.value.problems) == 3


def test_what_is_left_out_has_its_default() -> None:
    spec = read(resource(), "voice.yaml").spec
    assert (spec.trigger.on_change, spec.concurrency, spec.healthy_when, spec.retry) == (True, "Wait", "finished", 0)


@pytest.mark.medium
def test_the_examples_are_right_and_the_schema_in_the_folder_is_that_of_the_model() -> None:
    folder = CHECKOUT / "k8s" / "retraining"
    assert [one.name for one in read_retrainings([folder / "examples"])] == ["libritts", "customer-voice"]
    text = (folder / "crd.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == definition(), "python -m pipelines.retraining.schema > k8s/retraining/crd.yaml"


def test_the_schema_refuses_what_the_model_refuses_by_shape() -> None:
    import jsonschema

    root = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    validator = jsonschema.Draft7Validator(root)
    assert not list(validator.iter_errors(resource()))
    for wrong in ({"retry": -1}, {"concurrency": "Forbid"}, {"images": {"train": "no tag"}}, {"run": "text"}):
        assert list(validator.iter_errors(resource(spec=wrong))), wrong


def test_the_schema_is_structural() -> None:
    def look(part: Any, path: str) -> None:
        if isinstance(part, dict):
            assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "$defs"} & part.keys(), path
            for key, entry in part.items():
                look(entry, f"{path}.{key}")

    look(definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "root")


def test_a_name_that_is_declared_twice_a_file_that_is_none_and_a_folder_without_any_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(resource()), encoding="utf-8")
    (tmp_path / "c.yaml").write_text("kind: [", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text("kind: ConfigMap\n", encoding="utf-8")
    with pytest.raises(RefusalError) as refused:
        read_retrainings([tmp_path, tmp_path / "empty", tmp_path / "gone"])
    said = "\n".join(refused.value.lines)
    assert "declared in" in said
    assert "not YAML" in said
    assert "no Retraining of cosyflow.dev" in said
    assert "no such file or folder" in said


def test_the_next_tick_is_that_of_the_time_zone() -> None:
    from datetime import UTC, datetime

    one: Retraining = read(
        resource(spec={"trigger": {"schedule": {"cron": "0 3 * * *", "timeZone": "Europe/Berlin"}}}), "voice.yaml"
    )
    schedule = one.spec.trigger.schedule
    assert schedule is not None
    winter, summer = datetime(2026, 1, 10, 12, tzinfo=UTC), datetime(2026, 7, 10, 12, tzinfo=UTC)
    assert schedule.next_after(winter).astimezone(UTC).hour == 2
    assert schedule.next_after(summer).astimezone(UTC).hour == 1
