"""A recipe is refused with file, line, key and what is allowed; the recipes of conf/ are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.config.load import RecipeError, load_config
from cosyflow.errors import CosyFlowError

CONF = Path(__file__).resolve().parents[3] / "conf"
RECIPE = """version: cosyvoice2
token_frame_rate: 25
filter:
  max_length: 6000
train_conf:
  optim: adamw
  optim_conf: {lr: 1e-4}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("path", sorted(CONF.glob("cosyvoice*.yaml")), ids=lambda path: path.name)
def test_every_recipe_of_conf_is_valid(path: Path) -> None:
    assert path.name.startswith(load_config(path).version)


def test_an_exponent_without_a_dot_is_a_number(recipe: Path) -> None:
    assert load_config(recipe).train_conf.optim_conf.lr == 1e-4


@pytest.mark.parametrize(
    ("line", "replacement", "complaint"),
    [
        ("version: cosyvoice2", "version: cosyvoice9", "version: FILE:1: 'cosyvoice9' is not one of cosyvoice"),
        (
            "  optim: adamw",
            "  optim: adamax",
            "train_conf.optim: FILE:6: input should be 'adam' or 'adamw', not \"adamax\"",
        ),
        ("  optim: adamw", "  optimizer: adamw", "train_conf.optimizer: FILE:6: unknown key; allowed here: optim, "),
        (
            "token_frame_rate: 25",
            "token_rate: 25",
            "token_rate: FILE:2: unknown key; allowed here: version, sample_rate",
        ),
        (
            "  max_length: 6000",
            "  max_length: '6000'",
            'filter.max_length: FILE:4: input should be a valid integer, not "6000"',
        ),
        (
            "  max_length: 6000",
            "  max_length: 50",
            "filter.min_length: FILE:3: 100 is not between 0 and max_length (50)",
        ),
        (
            "  optim_conf: {lr: 1e-4}",
            "  optim_conf: {lr: -1.0}",
            "train_conf.optim_conf.lr: FILE:7: -1.0 is not positive",
        ),
        (
            "  optim: adamw",
            "  max_epoch: 1\n  max_epoch: 2",
            "train_conf.max_epoch: FILE:7: the key stands in line 6 already; remove one",
        ),
        ("filter:", "filter: [", "recipe: FILE:5: not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(recipe: Path, line: str, replacement: str, complaint: str) -> None:
    assert line in RECIPE
    recipe.write_text(RECIPE.replace(line, replacement))
    with pytest.raises(RecipeError) as caught:
        load_config(recipe)
    assert caught.value.lines[0].startswith("error: " + complaint.replace("FILE", str(recipe)))


def test_all_that_is_wrong_is_named_at_once(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("adamw", "adamax").replace("max_length: 6000", "max_length: long"))
    with pytest.raises(RecipeError) as caught:
        load_config(recipe, ["train_conf.max_epoch", "version.x=1", "train_conf.accum_grad=none", "mel.hop=3"])
    assert [problem.setting for problem in caught.value.problems] == [
        "train_conf.max_epoch", "version.x", "filter.max_length", "mel.hop", "train_conf.optim", "train_conf.accum_grad"
    ]  # fmt: skip
    assert [problem.text.partition(": ")[0] for problem in caught.value.problems] == [
        "command line", "command line", f"{recipe}:4", "command line", f"{recipe}:6", "command line"
    ]  # fmt: skip


def test_settings_of_the_command_line_replace_those_of_the_file(recipe: Path) -> None:
    recipe_with = load_config(recipe, ["train_conf.max_epoch=3", "filter.max_length=3000"])
    assert (recipe_with.train_conf.max_epoch, recipe_with.filter.max_length) == (3, 3000)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("train_conf.max_epoch=many", "train_conf.max_epoch: command line: input should be a valid integer"),
        ("train_conf.max_epoch", "a setting is written KEY=VALUE"),
        ("version.x=1", "version has no keys below it"),
    ],
)
def test_wrong_settings_of_the_command_line_are_named(recipe: Path, setting: str, complaint: str) -> None:
    with pytest.raises(CosyFlowError, match=complaint.replace(".", r"\.")):
        load_config(recipe, [setting])


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CosyFlowError, match=r"none.yaml: cannot read the recipe"):
        load_config(tmp_path / "none.yaml")
