"""The record of a run: its settings and its whole recipe, in one file that every task of it reads.

It lies under its own digest, `<data root>/runs/records/<digest>.json`, so equal runs have the same record at the same
place, and a server's cache, which goes by parameters, knows them as equal.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from cosyflow import storage
from cosyflow.config.recipe import Recipe, recipe_class
from cosyflow.credentials import tracking_address
from cosyflow.errors import CosyFlowError
from cosyflow.run import config
from cosyflow.run.config import Run
from cosyflow.run.recipes import Subsets, load_recipe, recipe_name, recipe_path, resolve_subsets
from cosyflow.unexpected import describe

RUNS = "runs"
RECORDS = f"{RUNS}/records"
DIGEST_LENGTH = 16
UI_VARIABLE = "KFP_UI_URL"


@dataclass(frozen=True)
class Record:
    """A run and its recipe.

    Attributes:
        run: the settings.
        recipe_name: "cosyvoice2.tiny"; of folders and registered models.
        recipe_file: where the recipe was read.
        recipe: with the run's overrides.
    """

    run: Run
    recipe_name: str
    recipe_file: str
    recipe: Recipe
    place: str = field(default="", compare=False)
    """Where it was read; a task of a newer version of CosyFlow would give it another digest."""

    @classmethod
    def of(cls, run: Run) -> Record:
        """The record of a run. Raises RefusalError for an unknown or wrong recipe, and for wrong subsets."""
        # by way of JSON, so that a default of 1 and the 1.0 that it becomes in a file are one value
        recipe = _read_recipe(json.loads(json.dumps(asdict(load_recipe(run.recipe, run.overrides)))))
        record = cls(run, recipe_name(run.recipe), str(recipe_path(run.recipe)), recipe)
        record.subsets  # noqa: B018  # names them, or refuses
        return record

    @classmethod
    def read(cls, uri: str) -> Record:
        """The record at a URI. Raises CosyFlowError when there is none, or it is of another version of CosyFlow."""
        content = storage.read_json(uri)
        try:
            recipe = _read_recipe(content["recipe"])
            run = config.from_parameters(content["run"])
            return cls(run, str(content["recipe_name"]), str(content["recipe_file"]), recipe, uri)
        except Exception as error:  # of whatever the file has in their place
            reason = str(error) if isinstance(error, CosyFlowError) else describe(error)
            raise CosyFlowError(
                f"{uri}: not a record of this version of CosyFlow ({reason}); start the run anew"
            ) from error

    def to_json(self) -> dict[str, Any]:
        content = {
            "run": self.run.to_json(),
            "recipe_name": self.recipe_name,
            "recipe_file": self.recipe_file,
            "recipe": asdict(self.recipe),
        }
        plain: dict[str, Any] = json.loads(json.dumps(content))
        return plain

    @cached_property
    def digest(self) -> str:
        """What identifies the run: equal settings and recipe, equal digest.

        Not so what the graph is compiled with, which no task reads, and where the recipe's file lies.
        """
        content = self.to_json()
        del content["recipe_file"]
        content["run"] = {name: content["run"][name] for name in config.PARAMETERS}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def uri(self) -> str:
        return self.place or storage.join(self.run.data_root, RECORDS, f"{self.digest[:DIGEST_LENGTH]}.json")

    def write(self) -> str:
        """Writes the record where it belongs, unless it is there. Returns its URI."""
        if not storage.exists(self.uri):
            storage.write_json(self.uri, self.to_json())
        return self.uri

    @cached_property
    def subsets(self) -> Subsets:
        run = self.run
        return resolve_subsets(self.recipe, run.train_subsets, run.dev_subsets, run.test_subsets)

    @property
    def version(self) -> str:
        """The model family."""
        return self.recipe.version

    @property
    def model_name(self) -> str:
        """The name of a recipe's part, for folders and the registry: "cosyvoice2-llm"."""
        return f"{self.recipe_name}-{self.run.model}"

    @property
    def data_url(self) -> str:
        return self.run.data_url or self.recipe.corpus.data_url

    @property
    def tracking(self) -> str:
        """The tracking server: the run's, else the environment's, else a file next to a local data root, else ""."""
        given = self.run.mlflow_uri or tracking_address()
        if given or storage.is_remote(self.run.data_root):
            return given
        return f"sqlite:///{Path(self.run.data_root).absolute().parent / 'mlflow.db'}"

    @property
    def digests(self) -> str:
        """Where digests of files are remembered."""
        return storage.join(self.run.data_root, "digests")

    @property
    def ui_url(self) -> str:
        return (self.run.ui_url or os.environ.get(UI_VARIABLE, "")).rstrip("/")

    def write_recipe(self, uri: str) -> None:
        """The whole recipe as YAML, with the run's overrides in it."""
        storage.write_text(uri, yaml.safe_dump(self.to_json()["recipe"], sort_keys=False, allow_unicode=True))


def _read_recipe(values: dict[str, Any]) -> Recipe:
    recipe: Recipe = TypeAdapter(recipe_class(values["version"])).validate_json(json.dumps(values))
    return recipe
