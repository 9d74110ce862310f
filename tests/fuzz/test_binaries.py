"""Readers of bytes are given damaged files for some seconds each, by `make fuzz` for ten minutes."""

from __future__ import annotations

import pytest

from tests.fuzz.running import give_damaged_files
from tests.fuzz.targets import BINARIES


@pytest.mark.slow
@pytest.mark.parametrize("target", BINARIES)
def test_damage_is_an_error_in_words(target: str) -> None:
    give_damaged_files(target)
