"""An official settings file as one of our recipes, with a line for whatever could not be carried over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cosyflow.config.llm import Qwen2Config
from cosyflow.config.official.form import FORMS
from cosyflow.config.official.hyperyaml import Call, HyperYamlError, Reference, look_up, read, resolved
from cosyflow.config.official.recognition import family_of
from cosyflow.config.official.structure import REQUIRED, Derived, Fixed, Setting, Unused
from cosyflow.config.recipe import Recipe, recipe_class
from cosyflow.errors import CosyFlowError
from cosyflow.families import family_names

_MODELS = ("llm", "flow", "hift")
_QWEN2 = "llm.qwen2"
_BATCHES = "train_conf.accum_grad"
_FRAMES, _USUAL_FRAMES = "train_conf.frames_per_step", 2000


@dataclass
class _Reading:
    """The file, and what was found so far."""

    tree: dict[str, Any]
    path: str
    values: dict[str, Any] = field(default_factory=dict)
    """Ours, by dotted key."""
    places: dict[str, str] = field(default_factory=dict)
    """Where in the file each came from."""
    notes: list[str] = field(default_factory=list)
    missing: dict[str, set[str]] = field(default_factory=dict)
    """What the file does not have, with the settings that it would give."""

    def look(self, place: str) -> Any:
        try:
            return resolved(self.tree, look_up(self.tree, place))
        except KeyError:
            return None

    def take(self, key: str, value: Any, place: str) -> None:
        if key in self.values and self.values[key] != value:
            raise CosyFlowError(
                f"{self.path}: {place} is {_shown(value)} and {self.places[key]} is {_shown(self.values[key])};"
                f" both are {key} in CosyFlow"
            )
        self.values[key] = value
        self.places.setdefault(key, place)


def read_official(text: str, path: str, qwen2_folder: str = "") -> tuple[Recipe, list[str]]:
    """A recipe with the sizes and settings of an official file; what is not in the file has the family's own values.

    Args:
        text: the file.
        path: names it in errors.
        qwen2_folder: has the sizes of Qwen2 in its `config.json`; by default the folder that the file names, if any.

    Returns:
        The recipe, and a line for each value of the file that it does not have.

    Raises:
        CosyFlowError: the file is damaged or of no known family, or its values do not go together.
    """
    tree = read(text, path)
    name = family_of(tree)
    if name is None:
        raise CosyFlowError(
            f"{path}: its llm is of none of {', '.join(family_names())}; name an official settings file"
        )
    reading = _Reading(tree, path)
    try:
        _walk(reading, FORMS[name], tree, "")
    except HyperYamlError as error:
        raise HyperYamlError(f"{path}: {error}") from error
    if qwen2_folder:
        tree["qwen_pretrain_path"] = qwen2_folder
    _take_sizes_of_qwen2(reading)
    if reading.values.get(_FRAMES, _USUAL_FRAMES) != _USUAL_FRAMES:
        tokens = "the llm's batch is train_conf.tokens_per_step, which stays as it is"
        reading.notes.append(f"{reading.places[_FRAMES]} = {reading.values[_FRAMES]}: is {_FRAMES}; {tokens}")
    if _BATCHES in reading.values:
        counts = "is of every GPU there, of the whole job here (train_conf_gan too); multiply it"
        reading.notes.append(f"{reading.places[_BATCHES]} = {reading.values[_BATCHES]}: {counts}")
    missing = [place for place, keys in reading.missing.items() if keys - reading.values.keys()]
    if missing:
        reading.notes.append(f"not in the file, so that CosyFlow's own values stand: {', '.join(missing)}")
    return _recipe(name, reading), reading.notes


def _walk(reading: _Reading, expected: Mapping[str, Any], found: Any, place: str) -> None:
    """Takes what is expected below a place of the file, and notes what else is there."""
    if not isinstance(found, dict):
        raise CosyFlowError(f"{reading.path}: {place} is {_shown(found)}, settings with names are expected there")
    for key, form in expected.items():
        _take(reading, form, f"{place}.{key}" if place else key, key in found)
    used = _referred(reading.tree) if not place else set()
    for key, value in found.items():
        if key not in expected and key not in used:
            where = f"{place}.{key}" if place else str(key)
            reading.notes.append(f"{where} = {_shown(value)}: CosyFlow has no such setting")


def _take(reading: _Reading, form: Any, place: str, there: bool) -> None:
    if isinstance(form, Setting) and (there or form.default is not REQUIRED):
        value = reading.look(place) if there else form.default
        for key in form.keys:
            reading.take(key, value, place)
    elif isinstance(form, Derived) and (there or form.optional):
        try:
            value = form.read(reading.look(place), reading.look)
        except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise CosyFlowError(
                f"{reading.path}: {place} is {_shown(reading.look(place))}, which it cannot be"
            ) from error
        reading.take(form.keys[0], value, place)
    elif not there:
        reading.missing[place] = _keys(form)
    elif isinstance(form, Fixed):
        if reading.look(place) != form.value:
            shown = f"{place} = {_shown(reading.look(place))}"
            reading.notes.append(f"{shown}: in CosyFlow it is always {_shown(form.value)}")
    elif isinstance(form, Unused):
        if form.reason and reading.look(place) != "":
            reading.notes.append(f"{place} = {_shown(reading.look(place))}: {form.reason}")
    elif isinstance(form, Call):
        _take_call(reading, form, place)
    elif isinstance(form, Mapping):
        _walk(reading, form, look_up(reading.tree, place), place)


def _keys(form: Any) -> set[str]:
    """The settings without a default that something in a file gives."""
    if isinstance(form, Setting | Derived):
        needed = form.default is REQUIRED if isinstance(form, Setting) else not form.optional
        return set(form.keys) if needed else set()
    form = form.given if isinstance(form, Call) else form
    inside = form.values() if isinstance(form, Mapping) else form if isinstance(form, list) else ()
    return {key for item in inside for key in _keys(item)}


def _take_call(reading: _Reading, form: Call, place: str) -> None:
    found = look_up(reading.tree, place)
    if not isinstance(found, Call):
        raise CosyFlowError(f"{reading.path}: {place} is {_shown(found)}, !{form.kind}:{form.name} is expected there")
    if found.name.rpartition(".")[2] != form.name.rpartition(".")[2]:
        if place.split(".")[0] in _MODELS:
            raise CosyFlowError(
                f"{reading.path}: {place} is {found.name}; with this llm the official code has {form.name}, and so has"
                " CosyFlow"
            )
        reading.notes.append(f"{place} = {found.name}: in CosyFlow it is always {form.name}")
    elif isinstance(form.given, list):
        for position, each in enumerate(form.given):
            _take(reading, each, f"{place}.{position}", isinstance(found.given, list) and position < len(found.given))
    else:
        _walk(reading, form.given, found.given, place)


def _referred(value: Any) -> set[str]:
    """The top-level keys that references name."""
    if isinstance(value, Reference):
        return {place.split(".")[0] for place in value.places}
    value = value.given if isinstance(value, Call) else value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {key for item in inside for key in _referred(item)}


def _take_sizes_of_qwen2(reading: _Reading) -> None:
    """The file has one size of Qwen2; the others are in its folder, where the file names one."""
    width = reading.values.pop(f"{_QWEN2}.hidden_size", None)
    folder = reading.look("qwen_pretrain_path")
    if width is None:
        return
    if isinstance(folder, str) and folder and (Path(folder) / "config.json").is_file():
        try:
            sizes = Qwen2Config.from_huggingface(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise CosyFlowError(f"{Path(folder) / 'config.json'}: {error}") from error
        for key, value in asdict(sizes).items():
            reading.take(f"{_QWEN2}.{key}", value, f"{folder}/config.json")
    elif width != Qwen2Config().hidden_size:
        reading.notes.append(
            f"llm_input_size = {_shown(width)}: the other sizes of this Qwen2 are in the config.json of its folder; set"
            f" {_QWEN2}.hidden_size and the rest of {_QWEN2} by it"
        )


def _recipe(name: str, reading: _Reading) -> Recipe:
    adapter = TypeAdapter(recipe_class(name))
    settings: dict[str, Any] = {"version": name}
    own = json.loads(adapter.dump_json(adapter.validate_json(json.dumps(settings))))
    for key, value in reading.values.items():
        *parents, last = key.split(".")
        section = own
        for parent in parents:
            section = section[parent]
        section[last] = value
    own["hifigan"]["generator"]["causal"] = name == "cosyvoice3"
    try:
        return adapter.validate_json(json.dumps(own))
    except ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
        key = ".".join(str(part) for part in error["loc"])
        place = next((place for ours, place in reading.places.items() if key and ours.startswith(key)), key)
        message = error["msg"].removeprefix("Value error, ")
        raise CosyFlowError(f"{reading.path}: {place}: {message}") from invalid
    except (TypeError, ValueError) as error:
        raise CosyFlowError(f"{reading.path}: has values that are no settings ({error})") from error


def _shown(value: Any) -> str:
    if isinstance(value, Call):
        return f"!{value.kind}:{value.name}"
    text = f"!ref {value.text}" if isinstance(value, Reference) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
