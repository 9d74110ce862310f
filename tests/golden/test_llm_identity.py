"""Every released checkpoint is recognised by its keys and shapes."""

from __future__ import annotations

import json

import pytest

from cosyflow.families.recognition import identify


@pytest.mark.golden_files("keytables/*.json")
def test_version_and_part(golden_file):
    table = json.loads(golden_file.read_text())
    identity = identify({key: tuple(entry["shape"]) for key, entry in table["state_dict"].items()})

    assert (identity.version, identity.part) == (table["model"], table["part"])
