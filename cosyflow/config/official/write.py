"""One of our recipes as the official settings file of its family, which the official code loads."""

from __future__ import annotations

from typing import Any

import yaml

from cosyflow.config.load import values_of
from cosyflow.config.official.form import FORMS, SPEAKING
from cosyflow.config.official.hyperyaml import Call, Reference
from cosyflow.config.official.structure import REQUIRED, Derived, Fixed, Look, Setting, Unused
from cosyflow.config.recipe import Recipe

_OMITTED = object()


class _Dumper(yaml.SafeDumper):
    """Writes the tags of HyperPyYAML, and no anchors, which it does not know."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_call(dumper: yaml.SafeDumper, call: Call) -> yaml.Node:
    tag = f"!{call.kind}:{call.name}"
    if isinstance(call.given, list):
        return dumper.represent_sequence(tag, call.given, flow_style=True)
    return (
        dumper.represent_mapping(tag, call.given, flow_style=False) if call.given else dumper.represent_scalar(tag, "")
    )


_Dumper.add_representer(Call, _represent_call)
_Dumper.add_representer(Reference, lambda dumper, reference: dumper.represent_scalar("!ref", reference.text))


def write_official(recipe: Recipe, *, training: bool = True) -> str:
    """The text of `cosyvoice.yaml`, `cosyvoice2.yaml` or `cosyvoice3.yaml`.

    Args:
        recipe: of any family.
        training: also what only the official trainer reads; a model directory needs none of it.
    """
    ours = values_of(recipe)

    def look(key: str) -> Any:
        value = ours
        for part in key.split("."):
            value = value[part]
        return value

    form = FORMS[recipe.version]
    values = {key: _written(each, look) for key, each in form.items() if training or key in SPEAKING}
    text: str = yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100
    )
    return text


def _written(form: Any, look: Look) -> Any:
    if isinstance(form, Setting):
        value = look(form.keys[0])
        return _OMITTED if form.default is not REQUIRED and value == form.default else value
    if isinstance(form, Derived):
        return form.write(look)
    if isinstance(form, Fixed | Unused):
        return form.value
    if isinstance(form, Call):
        return Call(form.kind, form.name, _written(form.given, look))
    if isinstance(form, list):
        return [_written(each, look) for each in form]
    written = {key: _written(each, look) for key, each in form.items()}
    return {key: value for key, value in written.items() if value is not _OMITTED}
