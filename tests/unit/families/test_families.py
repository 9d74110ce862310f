"""What is special to a model family stands in its folder, and nowhere else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cosyflow.config.recipe import recipe_class
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.families import facet, families, family, family_names, part_names

CHECKOUT = Path(__file__).resolve().parents[3]
OTHER_MEANINGS = {
    ("cosyflow/config/transformer.py", "llm"),  # an encoder within the language model
    ("pipelines/cosyvoice.py", "cosyvoice"),  # the pipeline
}  # fmt: skip


def test_there_are_three_families_of_three_parts() -> None:
    assert family_names() == ["cosyvoice", "cosyvoice2", "cosyvoice3"]
    assert part_names() == ("llm", "flow", "hifigan")
    for each in families():
        assert tuple(each.parts) == part_names()
        assert family(each.name) is each
        assert recipe_class(each.name)(version=each.name).version == each.name  # type: ignore[call-arg]


@pytest.mark.medium
@pytest.mark.parametrize("name", ["cosyvoice", "cosyvoice2", "cosyvoice3"])
def test_each_part_has_a_section_a_model_and_an_export(name: str) -> None:
    recipe = recipe_class(name)(version=name)  # type: ignore[call-arg]
    for part in family(name).parts.values():
        for section in (*part.reads, *([part.cut_by] if part.cut_by else [])):
            assert hasattr(recipe, section), section
        for section, settings in {**part.unread, **part.for_inference}.items():
            inner = recipe
            for step in section.split("."):
                inner = getattr(inner, step)
            for setting in settings:
                assert hasattr(inner, setting), (section, setting)
        assert recipe.conf_of(part.name) is getattr(recipe, part.conf)
    for by_part in (facet(name, "models").BUILDERS, facet(name, "training").BUILDERS, facet(name, "export").FILES):
        assert list(by_part) == list(family(name).parts)


def test_an_unknown_family_or_part_is_named_with_those_that_there_are() -> None:
    with pytest.raises(CosyFlowError, match="family 'cosyvoice4'; there are cosyvoice, cosyvoice2, cosyvoice3"):
        family("cosyvoice4")
    with pytest.raises(RefusalError, match="vocoder: the family cosyvoice2 has no such part; name one of llm, flow"):
        family("cosyvoice2").part("vocoder")


@pytest.mark.medium
def test_nothing_else_names_a_family_or_a_part() -> None:
    names = {*family_names(), *part_names()}
    found = [
        f"{path}:{node.lineno}: {node.value!r}"
        for package in ("cosyflow", "components", "pipelines")
        for file in sorted((CHECKOUT / package).rglob("*.py"))
        if not (path := str(file.relative_to(CHECKOUT))).startswith("cosyflow/families/")
        and not path.startswith("cosyflow/config/official/")  # the names in the official files
        and not file.name.startswith("test_")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
        if (path, node.value) not in OTHER_MEANINGS
    ]
    assert not found, "\n".join(found)


def test_facts_and_recipes_need_no_torch() -> None:
    program = (
        "import sys; from cosyflow.families import families; from cosyflow.config.recipe import recipe_class;"
        "[recipe_class(each.name) for each in families()]; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=CHECKOUT)
