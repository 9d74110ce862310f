"""Equal work is done once, interrupted work goes on, deleted work is noticed, a stage left out hands on."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.errors import CosyFlowError
from cosyflow.stage import Manifest, StageResult, run_stage, stage_key

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


class Work:
    """A stage function that counts its calls and writes one file."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, output: str) -> StageResult:
        self.calls.append(output)
        (Path(output) / "text").write_text("a hello\n")
        return StageResult(counts={"inputs": 2, "outputs": 1, "rejects": 1}, files=["text"])


def run(root: Path, work: Work, active: bool = True, **settings: object) -> Manifest:
    return run_stage("prepare", "dev-clean", str(root), [], settings, active, work, code=["cosyflow.errors"])


def test_equal_work_is_done_once(tmp_path: Path) -> None:
    work = Work()
    first = run(tmp_path, work, instruct="no")
    second = run(tmp_path, work, instruct="no")
    assert len(work.calls) == 1
    assert (first.reused, second.reused) == (False, True)
    assert second.digest == first.digest
    assert second.counts == {"inputs": 2, "outputs": 1, "rejects": 1}


def test_other_settings_make_other_outputs(tmp_path: Path) -> None:
    work = Work()
    assert run(tmp_path, work, instruct="no").uri != run(tmp_path, work, instruct="yes").uri
    assert len(work.calls) == 2


def test_a_deleted_output_is_made_again(tmp_path: Path) -> None:
    work = Work()
    manifest = run(tmp_path, work)
    (Path(manifest.uri) / "text").unlink()
    assert not run(tmp_path, work).reused
    assert len(work.calls) == 2


def test_work_with_an_unreadable_manifest_is_done_again(tmp_path: Path) -> None:
    work = Work()
    manifest = run(tmp_path, work)
    (Path(manifest.uri) / "manifest.json").write_text('{"layout": "of an older version"}')
    assert not run(tmp_path, work).reused
    assert len(work.calls) == 2


def test_a_file_deleted_from_a_folder_of_outputs_is_noticed(tmp_path: Path) -> None:
    calls = []

    def unpack(output: str) -> StageResult:
        calls.append(output)
        (Path(output) / "LibriTTS").mkdir(exist_ok=True)
        for name in ("a.wav", "b.wav"):
            (Path(output) / "LibriTTS" / name).write_bytes(b"RIFF")
        return StageResult(counts={}, files=[], folders=["LibriTTS"], digest="of the archive")

    for expected_calls in (1, 1):
        manifest = run_stage("download", "dev-clean", str(tmp_path), [], {}, True, unpack, ["cosyflow.errors"])
        assert len(calls) == expected_calls
    (Path(manifest.uri) / "LibriTTS" / "b.wav").unlink()
    run_stage("download", "dev-clean", str(tmp_path), [], {}, True, unpack, ["cosyflow.errors"])
    assert len(calls) == 2


def test_interrupted_work_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    folders = []

    def interrupted(output: str) -> StageResult:
        folders.append(output)
        (Path(output) / "part-0").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage("prepare", "dev-clean", str(tmp_path), [], {}, True, interrupted, code=["cosyflow.errors"])
    work = Work()
    run(tmp_path, work)
    assert work.calls == folders
    assert (Path(folders[0]) / "part-0").exists()


def test_a_stage_outside_the_range_hands_on_the_newest_outputs(tmp_path: Path) -> None:
    work = Work()
    run(tmp_path, work, instruct="old")
    newest = run(tmp_path, work, instruct="new")
    handed_on = run(tmp_path, work, active=False, instruct="whatever")
    assert handed_on.reused
    assert handed_on.uri == newest.uri


def test_a_stage_outside_the_range_without_outputs_names_the_file_and_the_stage(tmp_path: Path) -> None:
    with pytest.raises(CosyFlowError, match=r"prepare/dev-clean/latest.json: no such file; run the stage prepare for"):
        run(tmp_path, Work(), active=False)


def test_a_stage_outside_the_range_with_a_lost_output_names_it(tmp_path: Path) -> None:
    manifest = run(tmp_path, Work())
    (Path(manifest.uri) / "text").unlink()
    with pytest.raises(CosyFlowError, match=r"/text: gone or of another size; run the stage prepare"):
        run(tmp_path, Work(), active=False)


def test_manifests_survive_the_file(tmp_path: Path) -> None:
    manifest = run(tmp_path, Work())
    assert Manifest.read(str(Path(manifest.uri) / "manifest.json")) == manifest


def test_a_file_that_is_no_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "latest.json").write_text('{"stage": "prepare"}')
    with pytest.raises(CosyFlowError, match=r"latest.json: not a manifest"):
        Manifest.read(str(tmp_path / "latest.json"))


def test_counts_must_add_up() -> None:
    with pytest.raises(AssertionError, match="3 inputs are not 1 outputs and 1 rejects"):
        StageResult(counts={"inputs": 3, "outputs": 1, "rejects": 1}, files=[])


def test_stand_ins_are_marked_in_everything_made_with_them(tmp_path: Path) -> None:
    def extract(output: str) -> StageResult:
        return StageResult(counts={}, files=[], stand_ins=True)

    def pack(output: str) -> StageResult:
        return StageResult(counts={}, files=[])

    code = ["cosyflow.errors"]
    tokens = run_stage("speech-token", "dev-clean", str(tmp_path), [], {}, True, extract, code)
    assert run_stage("parquet", "dev-clean", str(tmp_path), [tokens], {}, True, pack, code).stand_ins


@given(JSON_VALUES, JSON_VALUES)
def test_keys_are_equal_exactly_when_settings_are(first: object, second: object) -> None:
    def key(value: object) -> str:
        return stage_key("prepare", "dev-clean", ["digest"], {"value": value}, "code")

    # repr tells 1 from True and 0 from False, as JSON does and == does not
    assert (key(first) == key(second)) == (canonical(first) == canonical(second))


def canonical(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    return repr(value)
