"""What a refusal says of settings that are wrong in themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.errors import RefusalError
from cosyflow.run.plan import check


def test_a_wrong_value_is_told_once_and_nothing_is_said_of_the_default_in_its_place(tmp_path: Path) -> None:
    wrong = {"data_root": str(tmp_path / "data"), "recipe": "cosyvoice2.tiny", "average_num": 0}
    fewer = {"overrides": ["train_conf.max_epoch=2"]}  # than the checkpoints that are averaged by default
    with pytest.raises(RefusalError) as refused:
        check(wrong | fewer)
    (told,) = [problem for problem in refused.value.problems if problem.setting == "average_num"]
    assert told.text.startswith("0 is less than 1")
