"""DeepSpeed's settings (`--deepspeed_config`): plain JSON, of which only what the recipe does not say is taken.

conf/ds_stage2.json says "auto" where the recipe decides. A file written for another trainer has values there, and the
recipe wins: each that differs is reported once, with the lines of both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cosyflow.config.training import TrainConf
from cosyflow.errors import Problem, RefusalError

SETTING = "deepspeed_config"
DEFAULT = "conf/ds_stage2.json"
CONF_VARIABLE = "COSYFLOW_CONF"
AUTO = "auto"
Place = tuple[str, ...]

_SHOWN = 40
_MEANS_THE_SAME: Mapping[Place, tuple[Any, ...]] = {
    ("train_micro_batch_size_per_gpu",): (1,),  # to DeepSpeed a packed batch is one thing
    ("fp16", "enabled"): (False,),
    ("bf16", "enabled"): (False,),
}
"""Values that say nothing else than the recipe, whatever it says."""

TAKEN = (
    "zero_optimization",
    "communication_data_type",
    "prescale_gradients",
    "gradient_predivide_factor",
    "steps_per_print",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "comms_logger",
    "flops_profiler",
)
"""Sections that DeepSpeed gets as they are."""
OF_THE_RECIPE = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "bf16",
    "fp16",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
)
"""Sections that the recipe or the engine decides."""


@dataclass(frozen=True)
class DeepSpeedSettings:
    """A file of DeepSpeed's settings.

    Attributes:
        values: the whole file.
        lines: of each key of a section, by its place.
        name: of the file, for messages.
    """

    values: Mapping[str, Any]
    lines: Mapping[Place, int]
    name: str

    @property
    def stage(self) -> int:
        """Of ZeRO: what is shared out among the ranks."""
        return int(self._zero.get("stage", 0))

    @property
    def for_deepspeed(self) -> dict[str, Any]:
        """What DeepSpeed gets of the file."""
        return dict(_without_auto({name: self.values[name] for name in TAKEN if name in self.values}))

    def get(self, place: Place) -> Any:
        """The value at a place; "auto" where there is none."""
        value: Any = self.values
        for key in place:
            value = value.get(key, AUTO) if isinstance(value, Mapping) else AUTO
        return value

    def where(self, place: Place) -> str:
        """File and line of a key."""
        line = self.lines.get(place)
        return f"{self.name}:{line}" if line else self.name

    @property
    def _zero(self) -> Mapping[str, Any]:
        found = self.values.get("zero_optimization", {})
        return found if isinstance(found, Mapping) else {}


def config_place(uri: str) -> str:
    """Where a file of settings is: the one of the checkout where the default one is not in the working folder."""
    if uri == DEFAULT and not Path(uri).exists():
        folder = os.environ.get(CONF_VARIABLE) or str(Path(__file__).resolve().parents[2] / "conf")
        return str(Path(folder) / Path(uri).name)
    return uri


def parse(text: str, name: str) -> DeepSpeedSettings:
    """Reads a file's text. Raises RefusalError when it is no JSON object, or when its ZeRO cannot work."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise RefusalError([Problem(SETTING, f"{name}:{error.lineno}: not JSON: {error.msg}; correct it")]) from error
    if not isinstance(values, dict):
        raise RefusalError([Problem(SETTING, f"{name}:1: not a JSON object; write {{KEY: VALUE}}")])
    settings = DeepSpeedSettings(values, line_numbers(text), name)
    if problems := list(_problems(settings)):
        raise RefusalError(problems)
    return settings


def line_numbers(text: str) -> dict[Place, int]:
    """The line of each key of a YAML or JSON text, by its place; empty where it is neither."""
    lines: dict[Place, int] = {}
    try:
        node = yaml.compose(text.expandtabs(), Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    _note_lines(node, (), lines)
    return lines


def overruled(
    settings: DeepSpeedSettings,
    conf: TrainConf,
    section: str,
    budget: str,
    recipe: str,
    recipe_lines: Mapping[Place, int],
) -> Iterator[str]:
    """A line for each value that the recipe says otherwise; the recipe's is the one that counts.

    Args:
        conf, section: how the part is trained, and where the recipe says so.
        budget: the setting that says how large a batch is.
        recipe: the recipe's file.
        recipe_lines: of its keys; one that has its default has none.
    """
    for place, (name, value) in _of_recipe(conf, budget).items():
        found = settings.get(place)
        if found == AUTO or _same(found, value) or found in _MEANS_THE_SAME.get(place, ()):
            continue
        line = recipe_lines.get((section, *name.split(".")))
        there = f"{recipe}:{line}" if line else f"{recipe}, its default"
        shown = json.dumps(found)
        yield (
            f"{settings.where(place)}: {'.'.join(place)} is {shown if len(shown) <= _SHOWN else 'given'}, and the"
            f" recipe wins: {section}.{name} is {json.dumps(value)} ({there})"
        )


def _of_recipe(conf: TrainConf, budget: str) -> dict[Place, tuple[str, Any]]:
    """What the recipe decides: by its place in DeepSpeed's settings the recipe's key and value."""
    optim = conf.optim_conf
    of_precision: dict[Place, tuple[str, Any]] = {
        ("fp16", "enabled"): ("dtype", conf.dtype),
        **({("bf16", "enabled"): ("dtype", conf.dtype)} if conf.dtype == "float32" else {}),
    }
    return {
        ("optimizer", "type"): ("optim", conf.optim),
        ("optimizer", "params", "lr"): ("optim_conf.lr", optim.lr),
        ("optimizer", "params", "betas"): ("optim_conf.betas", list(optim.betas)),
        ("optimizer", "params", "eps"): ("optim_conf.eps", optim.eps),
        ("optimizer", "params", "weight_decay"): ("optim_conf.weight_decay", optim.weight_decay),
        ("scheduler",): ("scheduler", conf.scheduler),
        ("gradient_clipping",): ("grad_clip", conf.grad_clip),
        ("gradient_accumulation_steps",): ("accum_grad", conf.accum_grad),
        ("train_batch_size",): (budget, getattr(conf, budget)),
        ("train_micro_batch_size_per_gpu",): (budget, getattr(conf, budget)),
        **of_precision,
    }


def _without_auto(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without_auto(entry) for key, entry in value.items() if entry != AUTO}


def _same(found: Any, value: Any) -> bool:
    if isinstance(found, str) and isinstance(value, str):
        return found.lower() == value.lower()
    return bool(found == value)


def _problems(settings: DeepSpeedSettings) -> Iterator[Problem]:
    known = {*TAKEN, *OF_THE_RECIPE}
    for key in settings.values.keys() - known:
        place = settings.where((key,))
        yield Problem(SETTING, f"{place}: {key} is not read here; leave it out (read are {', '.join(sorted(known))})")
    zero = settings.values.get("zero_optimization", {})
    if not isinstance(zero, Mapping):
        yield Problem(SETTING, f"{settings.where(('zero_optimization',))}: zero_optimization is no object; write one")
        return
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        at = settings.where(("zero_optimization", "stage"))
        yield Problem(SETTING, f"{at}: zero_optimization.stage is {json.dumps(stage)}; give 0, 1, 2 or 3")
        return
    for name, least in (("offload_optimizer", 1), ("offload_param", 3)):
        offload = zero.get(name)
        device = offload.get("device", "none") if isinstance(offload, Mapping) else "none"
        at = settings.where(("zero_optimization", name))
        if device not in ("none", "cpu"):
            yield Problem(SETTING, f"{at}: {name} to {device} does not work here; give the device cpu, or leave it out")
        elif device == "cpu" and stage < least:
            yield Problem(SETTING, f"{at}: {name} needs zero_optimization.stage {least} or more, here it is {stage}")


def _note_lines(node: yaml.Node | None, place: Place, lines: dict[Place, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, str(key.value))
            lines[here] = key.start_mark.line + 1
            _note_lines(value, here, lines)
