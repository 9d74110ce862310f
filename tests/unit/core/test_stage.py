"""What a stage leaves: a manifest that survives its file, and that knows when something of it is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.errors import CosyFlowError
from cosyflow.stage import (
    MANIFEST,
    Manifest,
    StageResult,
    digest_of,
    earlier_manifest,
    find_finished,
    lost_files,
    manifest_of_progress,
)


def manifest(folder: Path, **changed: Any) -> Manifest:
    values: dict[str, Any] = {
        "stage": "prepare", "name": "dev", "key": "k", "uri": str(folder), "digest": "d", "counts": {}, "files": {},
        "folders": {}, "settings": {}, "inputs": [], "details": {}, "seconds": 0.0, "stand_ins": False,
    }  # fmt: skip
    return Manifest(**{**values, **changed})


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    made = manifest(
        tmp_path, counts={"a": 1}, folders={"tree": [1, 2]}, sources=["/x"], made_by={"run": "1"}, version=3
    )
    (tmp_path / MANIFEST).write_text(made.to_json())
    assert Manifest.read(str(tmp_path / MANIFEST)) == made
    assert find_finished(str(tmp_path)) == made


def test_one_of_version_0_1_has_no_version(tmp_path: Path) -> None:
    old = json.loads(manifest(tmp_path).to_json())
    for name in ("version", "sources", "digests", "made_by", "record"):
        del old[name]
    assert Manifest.from_json(json.dumps(old)).version == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": "prepare"}', '{"unknown": 1}'])
def test_a_file_that_is_no_manifest_is_named_or_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CosyFlowError, match=r"manifest.json: not a manifest of a CosyFlow stage"):
        Manifest.read(str(tmp_path / MANIFEST))
    assert find_finished(str(tmp_path)) is None


def test_a_folder_without_a_manifest_is_unfinished(tmp_path: Path) -> None:
    assert find_finished(str(tmp_path)) is None
    assert find_finished(str(tmp_path / "nowhere")) is None


def test_what_is_gone_or_of_another_size_is_lost(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    for name in ("whole", "short", "tree/a", "tree/deep/b"):
        (tmp_path / name).write_text("1234")
    made = manifest(tmp_path, files={"whole": 4, "short": 4, "gone": 4}, folders={"tree": [2, 8]})
    assert lost_files(made) == ["gone"]
    (tmp_path / "short").write_text("12")
    (tmp_path / "tree" / "deep" / "b").unlink()
    assert lost_files(made) == ["short", "gone", "tree"]


def test_what_a_folder_handed_on_before_it_went_on_is_found_by_its_digest(tmp_path: Path) -> None:
    fewer, more = manifest(tmp_path, digest="of 5"), manifest(tmp_path, digest="of 10")
    assert manifest_of_progress("5-epochs") == "manifest.5-epochs.json"
    (tmp_path / manifest_of_progress("5-epochs")).write_text(fewer.to_json())
    (tmp_path / MANIFEST).write_text(more.to_json())
    assert earlier_manifest(str(tmp_path), "of 5") == fewer
    assert earlier_manifest(str(tmp_path), "of 7") is None


def test_counts_must_add_up() -> None:
    with pytest.raises(AssertionError, match="3 inputs are not 1 outputs and 1 rejects"):
        StageResult(counts={"inputs": 3, "outputs": 1, "rejects": 1}, files=[])
    StageResult(counts={"inputs": 2, "outputs": 1, "rejects": 1}, files=[])


FILES = st.dictionaries(st.text("ab", min_size=1, max_size=3), st.text("01", min_size=1, max_size=3), max_size=4)


@given(FILES, FILES)
def test_the_digest_of_files_is_that_of_names_and_contents(one: dict[str, str], other: dict[str, str]) -> None:
    assert (digest_of(one) == digest_of(other)) == (one == other)
    assert digest_of(dict(reversed(one.items()))) == digest_of(one)
