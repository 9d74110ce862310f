"""A recipe is refused with file, line, key and what is allowed; the recipes of conf/ are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.config.load import load_config
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
        ("version: cosyvoice2", "version: cosyvoice9", "1: version: 'cosyvoice9' is not one of cosyvoice"),
        ("  optim: adamw", "  optim: adamax", "6: train_conf.optim: input should be 'adam' or 'adamw', not \"adamax\""),
        ("  optim: adamw", "  optimizer: adamw", "6: train_conf.optimizer: unknown key; allowed here: optim, "),
        ("token_frame_rate: 25", "token_rate: 25", "2: token_rate: unknown key; allowed here: version, sample_rate"),
        (
            "  max_length: 6000",
            "  max_length: '6000'",
            '4: filter.max_length: input should be a valid integer, not "6000"',
        ),
        ("  max_length: 6000", "  max_length: 50", "3: filter.min_length: 100 is not between 0 and max_length (50)"),
        ("  optim_conf: {lr: 1e-4}", "  optim_conf: {lr: -1.0}", "7: train_conf.optim_conf.lr: -1.0 is not positive"),
        ("  optim: adamw", "  max_epoch: 1\n  max_epoch: 2", "7: the key max_epoch stands in line 6 already"),
        ("filter:", "filter: [", "not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(recipe: Path, line: str, replacement: str, complaint: str) -> None:
    assert line in RECIPE
    recipe.write_text(RECIPE.replace(line, replacement))
    with pytest.raises(CosyFlowError) as caught:
        load_config(recipe)
    assert str(caught.value).startswith(f"{recipe}:")
    assert complaint in str(caught.value)


def test_settings_of_the_command_line_replace_those_of_the_file(recipe: Path) -> None:
    recipe_with = load_config(recipe, ["train_conf.max_epoch=3", "filter.max_length=3000"])
    assert (recipe_with.train_conf.max_epoch, recipe_with.filter.max_length) == (3, 3000)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("train_conf.max_epoch=many", "command line: train_conf.max_epoch: input should be a valid integer"),
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
