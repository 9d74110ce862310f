"""What one process of a training is set up with: its options, its recipe, and its place among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from cosyflow.config.recipe import Recipe
from cosyflow.config.training import TrainConf
from cosyflow.progress import say
from cosyflow.training.arguments import Arguments
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.ranks import Ranks

ComputeType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Setup:
    """What the parts of a training are built from."""

    arguments: Arguments
    recipe: Recipe
    ranks: Ranks
    data_notes: dict[str, Any] = field(default_factory=dict)
    """What the first rank found of the data, for the result: utterances that are not used, by list and reason, ..."""

    @property
    def conf(self) -> TrainConf:
        """How the part is trained."""
        return self.recipe.conf_of(self.arguments.model)

    @property
    def log(self) -> Callable[[str], None]:
        """Prints a line, on the first rank alone."""
        return self.say if self.ranks.is_first else _say_nothing

    @property
    def say(self) -> Callable[[str], None]:
        """Prints a line."""
        return partial(say, f"train {self.arguments.model}")

    @property
    def loader(self) -> LoaderSettings:
        arguments = self.arguments
        return LoaderSettings(arguments.num_workers, arguments.prefetch or None, arguments.pin_memory)

    @property
    def compute_dtype(self) -> ComputeType:
        """Type of activations and matrix products; weights and optimizer stay float32."""
        on_gpu = self.ranks.device.type == "cuda"
        if self.conf.dtype == "auto" or (self.arguments.use_amp and on_gpu):
            return "bfloat16" if on_gpu else "float32"
        return self.conf.dtype

    @property
    def settings(self) -> dict[str, Any]:
        """What is noted of the run with every checkpoint, as plain values."""
        return {
            **_plain(asdict(self.conf)),
            **_plain(asdict(self.arguments)),
            "compute_dtype": self.compute_dtype,
            "world_size": self.ranks.world_size,
            "version": self.recipe.version,
        }


def _say_nothing(message: str) -> None:
    """What every rank but the first says."""


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a safe YAML reader takes them."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
