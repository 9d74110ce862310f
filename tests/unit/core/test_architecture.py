"""docs/architecture.md has each package of the library once."""

from __future__ import annotations

import re

from tests.unit.packages import CHECKOUT


def test_the_table_has_the_packages_that_there_are() -> None:
    page = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in (CHECKOUT / "cosyflow").glob("*/__init__.py"))
