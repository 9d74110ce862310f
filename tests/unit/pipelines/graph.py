"""Reads a compiled pipeline: its tasks, wherever they are nested, and where each of their inputs comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml


class Graph:
    """A pipeline's IR.

    Attributes:
        tasks: by name, those of leaf components and of the graphs between them.
    """

    def __init__(self, ir: Mapping[str, Any]) -> None:
        self.ir = ir
        self.tasks: dict[str, dict[str, Any]] = {}
        self._home: dict[str, str] = {}
        for graph in ("", *ir["components"]):
            for name, task in self._dag(graph).get("tasks", {}).items():
                assert name not in self.tasks, name
                self.tasks[name], self._home[name] = task, graph

    @classmethod
    def read(cls, path: Path) -> Graph:
        return cls(next(yaml.safe_load_all(path.read_text(encoding="utf-8"))))

    def source(self, task: str, name: str) -> str:
        """Where an input comes from, however many graphs it goes through.

        "PARAMETER" of the pipeline, "TASK.OUTPUT", "each of ..." for what a loop goes over, or a constant.
        """
        inputs = self.tasks[task]["inputs"]
        value = inputs.get("parameters", {}).get(name) or inputs["artifacts"][name]
        return self._follow(value, self._home[task])

    def inputs(self, task: str) -> dict[str, str]:
        """All inputs of a task, each with where it comes from."""
        inputs = self.tasks[task].get("inputs", {})
        return {name: self.source(task, name) for kind in ("parameters", "artifacts") for name in inputs.get(kind, {})}

    @property
    def subsets_at_once(self) -> int:
        (loop,) = [task for task in self.tasks.values() if "parameterIterator" in task]
        limit: int = loop["iteratorPolicy"]["parallelismLimit"]
        return limit

    def _follow(self, value: Mapping[str, Any], graph: str) -> str:
        ((kind, what),) = value.items()
        if kind in ("componentInputParameter", "componentInputArtifact"):
            return self._from_outside(str(what), graph)
        if kind in ("taskOutputParameter", "taskOutputArtifact"):
            return self._output(what["producerTask"], what.get("outputParameterKey") or what["outputArtifactKey"])
        if kind == "runtimeValue":
            return str(what["constant"])
        return f"{kind} {what}"

    def _from_outside(self, name: str, graph: str) -> str:
        if not graph:
            return name
        (user,) = [task for task, content in self.tasks.items() if content["componentRef"]["name"] == graph]
        iterator = self.tasks[user].get("parameterIterator")
        if iterator and name == iterator["itemInput"]:
            return f"each of {self.source(user, iterator['items']['inputParameter'])}"
        return self.source(user, name)

    def _output(self, task: str, key: str) -> str:
        """A leaf's own output, or that of the leaf within a graph that it is."""
        outputs = self._dag(self.tasks[task]["componentRef"]["name"]).get("outputs")
        if not outputs:
            return f"{task}.{key}"
        (selector,) = outputs["artifacts"][key]["artifactSelectors"]
        return self._output(selector["producerSubtask"], selector["outputArtifactKey"])

    def leaves(self) -> Iterator[str]:
        """The tasks that run in pods of their own."""
        for name, task in self.tasks.items():
            if "executorLabel" in self.ir["components"][task["componentRef"]["name"]]:
                yield name

    def container(self, task: str) -> dict[str, Any]:
        label = self.ir["components"][self.tasks[task]["componentRef"]["name"]]["executorLabel"]
        container: dict[str, Any] = self.ir["deploymentSpec"]["executors"][label]["container"]
        return container

    def _dag(self, graph: str) -> dict[str, Any]:
        content = self.ir["components"][graph] if graph else self.ir["root"]
        dag: dict[str, Any] = content.get("dag", {})
        return dag
