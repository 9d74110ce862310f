"""A tiny run whose components really work, each on the artifacts of those before it, as the graph passes them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

import components
from cosyflow.run.config import PARAMETERS, default_of
from cosyflow.run.execute import RUN_VARIABLE
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from cosyflow.standins import espeak
from cosyflow.standins.corpus import Speaker, speak_corpus
from cosyflow.standins.models import make_stand_ins

UTTERANCES = {"train-a": 2, "train-b": 3, "dev": 2, "test": 1}
MODEL = "cosyvoice2.tiny-llm"
RUN_ID = "run-of-components"


def names_of(stage: str) -> list[str]:
    """What a stage works on in the tiny run."""
    return {"subset": list(UTTERANCES), "run": ["lists"], "part": [MODEL]}[STAGES[stage].per]


def component_of(stage: str) -> Any:
    return getattr(components, stage.replace("-", "_"))


def artifacts_of(stage: str, direction: str) -> list[str]:
    """The names of a component's artifacts, "inputs" or "outputs", as they stand in its function."""
    component = component_of(stage)
    channels = getattr(component.component_spec, direction)
    names = [name for name in inspect.signature(component.python_func).parameters if name in channels]
    return [name for name in names if str(channels[name].type).startswith("system.")]


@dataclass
class Chain:
    """A planned run. Its work is done when a test first asks for it, and then stays done."""

    folder: Path
    settings: dict[str, Any]
    plan: Any = None
    _made: dict[tuple[str, str], dict[str, dsl.Artifact]] = field(default_factory=dict)
    _calls: int = 0

    def made(self, stage: str, name: str) -> dict[str, dsl.Artifact]:
        """The artifacts of a component's first call."""
        if (stage, name) not in self._made:
            self._made[stage, name] = self.call(stage, name)
        return self._made[stage, name]

    def manifest(self, stage: str, name: str) -> Manifest:
        return Manifest.read(self.made(stage, name)[STAGES[stage].makes].path)

    def call(self, stage: str, name: str, **changed: Any) -> dict[str, dsl.Artifact]:
        """Calls a stage's component as the graph does; `changed` replaces artifacts that it would be given."""
        given = {"record": self.plan.record, "stamp": "", **self.inputs(stage, name), **changed}
        if stage == "train":
            given["task_config"] = dsl.TaskConfig()
        if not STAGES[stage].inputs:
            given["subset"] = name
        self._calls += 1
        outputs = {
            output: _new_artifact(stage, output, self.folder / "artifacts" / f"{self._calls}-{stage}-{name}-{output}")
            for output in artifacts_of(stage, "outputs")
        }
        component_of(stage).python_func(**given, **outputs)
        return outputs

    def inputs(self, stage: str, name: str) -> dict[str, Any]:
        """The artifacts that a component works on: those that the stages before it made under the same names."""
        maker = {each.makes: each for each in STAGES.values()}
        inputs: dict[str, Any] = {}
        for artifact in artifacts_of(stage, "inputs"):
            before = maker[artifact]
            if STAGES[stage].per == "run":
                inputs[artifact] = [self.made(before.name, subset)[artifact] for subset in UTTERANCES]
            else:
                of = name if name in names_of(before.name) else names_of(before.name)[0]
                inputs[artifact] = self.made(before.name, of)[artifact]
        return inputs


def _new_artifact(stage: str, output: str, path: Path) -> dsl.Artifact:
    kinds = {"system.Dataset": dsl.Dataset, "system.Model": dsl.Model, "system.Metrics": dsl.Metrics}
    kind = str(component_of(stage).component_spec.outputs[output].type).partition("@")[0]
    return kinds[kind](uri=str(path))


def tiny_run(folder: Path) -> dict[str, Any]:
    """Every parameter of a run that ends in seconds, of speech and stand-in models that are made for it."""
    voices = ["gmw/en-US+m1", "gmw/en+f2", "gmw/en-US+f4", "gmw/en-GB-scotland+m3"]
    speak_corpus(
        folder / "corpus",
        [
            Speaker(subset, 9001 + place, 1, count, voices[place], 50, 200)
            for place, (subset, count) in enumerate(UTTERANCES.items())
        ],
    )
    make_stand_ins(folder / "pretrained")
    chosen = {
        "recipe": "cosyvoice2.tiny",
        "overrides": ["train_conf.max_epoch=1"],
        "data_root": str(folder / "data"),
        "data_url": str(folder / "corpus"),
        "pretrained_dir": str(folder / "pretrained"),
        "train_subsets": ["train-a", "train-b"],
        "dev_subsets": ["dev"],
        "test_subsets": ["test"],
        "num_processes": 1,
        "num_workers": 0,
        "pin_memory": False,
        "launcher": "local",
        "gpus_per_node": 0,
        "average_num": 1,
        "mlflow_uri": f"sqlite:///{folder / 'mlflow.db'}",
    }
    return {name: default_of(name) for name in PARAMETERS} | chosen


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    if not espeak.is_installed():
        pytest.skip("the corpus is spoken by the optional espeakng-loader")
    folder = tmp_path_factory.mktemp("components")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN_VARIABLE, RUN_ID)
        chain = Chain(folder, tiny_run(folder))
        chain.plan = components.plan.python_func(run="", **chain.settings)
        yield chain
