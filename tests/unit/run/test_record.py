"""The record of a run: all that its tasks know, in a file that is found by its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow.content import Digests
from cosyflow.credentials import TRACKING_VARIABLE
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.run import config
from cosyflow.run.record import UI_VARIABLE, Record
from cosyflow.run.stages import STAGES
from tests.unit.run.world import World

EVERYTHING = {
    "overrides": ["train_conf.optim_conf.lr=1e-3"],
    "resources": {"train": {"memory_limit": "8Gi", "cpu_limit": 2}},
    "subsets_at_once": 3,
    "max_reject_share": 0,
    "instruct": "Sprich „leise“.",
}


@pytest.mark.parametrize("recipe", ["cosyvoice", "cosyvoice2", "cosyvoice3", "cosyvoice2.tiny"])
@pytest.mark.parametrize("part", ["llm", "flow", "hifigan"])
def test_a_task_reads_what_the_plan_wrote(world: World, recipe: str, part: str) -> None:
    """And names work as the plan did, down to the last 10 that might have become 10.0."""
    planned = world.record(recipe=recipe, model=part, **EVERYTHING)
    read = Record.read(planned.write())
    assert (read, read.digest, read.uri) == (planned, planned.digest, planned.uri)
    for stage in STAGES.values():
        (here, there) = (repr(stage.settings(record, "dev", Digests())) for record in (planned, read))
        assert here == there


def test_a_record_is_written_once(world: World) -> None:
    record = world.record()
    written = Path(record.write())
    before = written.stat()
    record.write()
    assert written.stat() == before


def test_other_settings_have_another_record(world: World) -> None:
    assert world.record().digest == world.record().digest
    assert world.record().digest != world.record(num_workers=3).digest


def test_what_is_no_record_of_this_version_is_named(world: World) -> None:
    path = Path(world.record().write())
    content = json.loads(path.read_text())
    for wrong in ({}, {**content, "recipe": {"version": "cosyvoice9"}}, {**content, "run": {"modell": "llm"}}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(CosyFlowError, match=r"json: not a record of this version of CosyFlow .*start the run anew"):
            Record.read(str(path))


def test_a_run_survives_its_file(world: World) -> None:
    run = world.record(**EVERYTHING).run
    assert config.from_parameters(config.read_run(run.to_yaml())) == run
    assert config.from_parameters(run.to_json()) == run


def test_the_recipe_is_written_with_its_overrides(world: World) -> None:
    record = world.record(overrides=["train_conf.max_epoch=3"])
    path = world.folder / "recipe.yaml"
    record.write_recipe(str(path))
    assert yaml.safe_load(path.read_text())["train_conf"]["max_epoch"] == 3
    assert world.record(recipe=str(path)).recipe == record.recipe


@pytest.mark.parametrize(
    ("given", "variable", "root", "expected"),
    [
        ("http://given", "http://environment", "/data", "http://given"),
        ("", "http://environment", "/data", "http://environment"),
        ("", "", "/exp/data", "sqlite:////exp/mlflow.db"),
        ("", "", "s3://bucket/data", ""),
    ],
)
def test_the_registry_is_the_runs_else_the_environments_else_a_file(
    world: World, monkeypatch: pytest.MonkeyPatch, given: str, variable: str, root: str, expected: str
) -> None:
    monkeypatch.setenv(TRACKING_VARIABLE, variable)
    assert world.record(mlflow_uri=given, data_root=root).tracking == expected


def test_the_address_of_the_ui_may_be_the_environments(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UI_VARIABLE, "http://kubeflow/")
    assert world.record().ui_url == "http://kubeflow"
    assert world.record(ui_url="http://mine").ui_url == "http://mine"


def test_the_corpus_of_a_recipe_is_the_default(world: World) -> None:
    record = world.record(data_url="", train_subsets=[], dev_subsets=[], test_subsets=[], recipe="cosyvoice2")
    assert record.data_url == record.recipe.corpus.data_url
    assert record.subsets.every == [
        "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["num_workers=3"], {"num_workers": 3}),
        (["val_best=false"], {"val_best": False}),
        (["train_subsets=a b,c"], {"train_subsets": ("a", "b", "c")}),
        (["train_subsets=[a, b]"], {"train_subsets": ("a", "b")}),
        (["instruct=3"], {"instruct": "3"}),
        (["train_conf.max_epoch=3", "seed=1"], {"overrides": ["train_conf.max_epoch=3", "seed=1"]}),
        (["overrides=[a.b=1]", "c.d=2"], {"overrides": ["a.b=1", "c.d=2"]}),
        (["resources={train: {cpu_limit: 2}}"], {"resources": {"train": {"cpu_limit": "2"}}}),
    ],
)
def test_a_setting_is_changed_by_its_name(words: list[str], expected: dict[str, Any]) -> None:
    assert config.changed({}, words) == expected


@pytest.mark.parametrize(
    ("word", "setting"), [("num_workers", "--set"), ("=3", "--set"), ("num_workers=[", "num_workers"),
                          ("num_workers=many", "num_workers"), ("num_workers=", "num_workers")],
)  # fmt: skip
def test_what_changes_nothing_is_refused(word: str, setting: str) -> None:
    with pytest.raises(RefusalError) as refusal:
        config.changed({}, [word])
    assert [problem.setting for problem in refusal.value.problems] == [setting]


def test_places_are_written_from_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "data_root": "exp/data",
        "data_url": "https://x/60",
        "checkpoint": "auto",
        "recipe": "cosyvoice2",
        "job": "",
    }
    assert config.with_absolute_places(given) == {
        **given,
        "data_root": f"{tmp_path}/exp/data",
        "pretrained_dir": f"{tmp_path}/{config.default_of('pretrained_dir')}",
    }
    assert config.with_absolute_places({"recipe": "mine.yaml"})["recipe"] == f"{tmp_path}/mine.yaml"


def test_a_parameter_counts_where_it_is_not_its_default() -> None:
    """Kubeflow sends every parameter, so a default says nothing against a run's file."""
    flat = {"model": "llm", "average_num": 3, "num_workers": 2.0, "val_best": True}
    values, origin = config.merged(flat, {"model": "flow", "average_num": 4, "val_best": False, "nonsense": 1})
    assert values == {"model": "flow", "average_num": 3, "val_best": False, "nonsense": 1, "num_workers": 2.0}
    assert origin == {"model": "run", "average_num": "parameter", "val_best": "run", "nonsense": "run"}
