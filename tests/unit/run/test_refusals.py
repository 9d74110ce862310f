"""What a refusal says of settings that are wrong in themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.errors import RefusalError
from cosyflow.run.config import PLACES, from_parameters
from cosyflow.run.plan import check


def test_a_wrong_value_is_told_once_and_nothing_is_said_of_the_default_in_its_place(tmp_path: Path) -> None:
    wrong = {"data_root": str(tmp_path / "data"), "recipe": "cosyvoice2.tiny", "average_num": 0}
    fewer = {"overrides": ["train_conf.max_epoch=2"]}  # than the checkpoints that are averaged by default
    with pytest.raises(RefusalError) as refused:
        check(wrong | fewer)
    (told,) = [problem for problem in refused.value.problems if problem.setting == "average_num"]
    assert told.text.startswith("0 is less than 1")


@pytest.mark.parametrize("setting", sorted(PLACES))
def test_a_key_in_any_address_is_refused_by_name_and_not_repeated(setting: str, tmp_path: Path) -> None:
    """It ended in a KeyError."""
    with pytest.raises(RefusalError) as refused:
        from_parameters({"data_root": str(tmp_path), setting: "s3://KEY:hush@bucket/x.yaml"})
    (told,) = refused.value.problems
    assert told.setting == setting
    assert "came with a key" in told.text
    assert "hush" not in str(told)


def test_a_recipe_of_another_machine_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RefusalError, match=r"^recipe: https://example\.org/r\.yaml: a recipe is a name or a file of"):
        check({"data_root": str(tmp_path), "recipe": "https://example.org/r.yaml"})
