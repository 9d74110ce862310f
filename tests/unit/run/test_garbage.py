"""`cosyflow gc`: what nothing refers to is listed with its size, and what anybody needs is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cosyflow import storage
from cosyflow.cli import main
from cosyflow.content import Digests
from cosyflow.lease import held
from cosyflow.release.register import register_models
from cosyflow.run.chain import walk
from cosyflow.run.execute import find_work
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import MANIFEST, Manifest
from tests.unit.run.world import World, finish

Json = list[dict[str, Any]]


pytestmark = pytest.mark.medium


def gc(capsys: pytest.CaptureFixture[str], root: object, *options: str, status: int = 0) -> Json:
    capsys.readouterr()
    assert main(["gc", "--data-root", str(root), "--format", "json", *options]) == status
    found: Json = json.loads(capsys.readouterr().out)
    return found


def stages_of(found: Json, root: object) -> list[str]:
    """STAGE or VERSION/STAGE of each entry."""
    paths = [Path(entry["uri"]).relative_to(str(root)).parts for entry in found]
    return ["/".join(path[: 2 if path[0].startswith("cosyvoice") else 1]) for path in paths]


@pytest.fixture
def two_runs(world: World) -> tuple[Record, dict[str, Manifest], dict[str, Manifest]]:
    """A run that superseded another; only its record is there. Returns its record, its work and that of the other."""
    earlier = finish(world.record(instruct="Whisper."))
    record = world.record()
    record.write()
    return record, finish(record), earlier


def is_done(record: Record) -> bool:
    return all(link.finished for link in walk(record, Digests()))


def test_work_of_a_run_with_a_record_is_kept(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for record in (world.record(instruct="Whisper."), world.record()):
        record.write()
        finish(record)
    assert gc(capsys, world.data) == []


def test_work_that_nothing_refers_to_goes_with_all_it_has(
    two_runs: tuple[Record, dict[str, Manifest], dict[str, Manifest]], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    record, made, earlier = two_runs
    found = gc(capsys, world.data)
    gone = {manifest.uri for manifest in earlier.values()} - {manifest.uri for manifest in made.values()}
    assert {entry["uri"] for entry in found} == gone
    for entry in found:
        sizes = [file.stat().st_size for file in Path(entry["uri"]).iterdir() if file.is_file()]
        assert entry["bytes"] == sum(sizes)
        assert entry["reason"] == "no run, no newest link and no registered version refers to it"
    assert all(Path(uri).exists() for uri in gone), "only listed"
    assert gc(capsys, world.data, "--delete") == found
    assert not any(Path(uri).exists() for uri in gone)
    assert gc(capsys, world.data) == []
    assert is_done(record)


def test_records_older_than_an_age_keep_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    records = (world.record(instruct="Whisper."), world.record())
    for record in records:
        record.write()
        finish(record)
    assert gc(capsys, world.data, "--older-than", "7d") == []
    found = gc(capsys, world.data, "--older-than", "0d", "--delete")
    assert "prepare" in stages_of(found, world.data)
    assert (is_done(records[0]), is_done(records[1])) == (False, True), "the newest is kept, whatever its age"


def test_interrupted_work_is_kept_for_its_run(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    record = world.record()
    record.write()
    made = finish(record)
    trained = Path(made["train/cosyvoice2.tiny-llm"].uri)
    (trained / MANIFEST).unlink()
    assert gc(capsys, world.data) == []
    Path(record.uri).unlink()
    storage.remove(str(trained.parent / "latest.json"))
    shutil.rmtree(world.data / "newest")
    for later in ("average", "export", "register"):
        shutil.rmtree(world.data / "cosyvoice2" / later)
    (entry,) = gc(capsys, world.data)
    assert entry["uri"] == str(trained)
    assert entry["reason"].startswith("unfinished")
    with held(str(trained), "train"):
        assert gc(capsys, world.data) == [], "somebody works there"


def test_what_killed_processes_were_writing_is_listed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    record = world.record()
    record.write()
    made = finish(record)
    folder = Path(made["prepare/dev"].uri)
    (folder / ".text.0123456789ab.part").write_bytes(b"half")
    (folder / ".dev.unpacked.part").mkdir()
    (folder / ".dev.unpacked.part" / "a.wav").write_bytes(b"RIFF")
    (world.data / "digests" / ".young.0123456789ab.part").parent.mkdir(exist_ok=True)
    (world.data / "digests" / ".young.0123456789ab.part").write_bytes(b"just now")
    found = gc(capsys, world.data, "--delete")
    assert [(Path(entry["uri"]).name, entry["bytes"]) for entry in found] == [
        (".dev.unpacked.part", 4), (".text.0123456789ab.part", 4),
    ]  # fmt: skip
    assert is_done(record)


def test_the_same_in_a_store(
    two_runs: tuple[Record, dict[str, Manifest], dict[str, Manifest]],
    world: World,
    s3_folder: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage.upload_tree(world.data, s3_folder)
    here = gc(capsys, world.data)
    there = gc(capsys, s3_folder)
    relative = [{**entry, "uri": entry["uri"].removeprefix(str(world.data))} for entry in here]
    assert [{**entry, "uri": entry["uri"].removeprefix(s3_folder)} for entry in there] == relative
    assert gc(capsys, s3_folder, "--delete") == there
    assert gc(capsys, s3_folder) == []


def test_registered_versions_are_kept_with_all_they_were_made_of(
    two_runs: tuple[Record, dict[str, Manifest], dict[str, Manifest]],
    world: World,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, _, earlier = two_runs
    average = earlier["average/cosyvoice2.tiny-llm"]
    registry = f"sqlite:///{world.folder}/registry.db"
    place = storage.join(average.uri, "made.txt")
    register_models({"m": place}, str(world.folder / "registered"), registry, {"manifest": average.uri})
    found = gc(capsys, world.data, "--older-than", "0d", "--mlflow_uri", registry)
    kept = {"download", "prepare", "speaker-embedding", *(f"cosyvoice2/{stage}" for stage in ("train", "average"))}
    assert set(stages_of(found, world.data)).isdisjoint(kept)
    assert "cosyvoice2/export" in stages_of(found, world.data)


def test_a_registry_that_does_not_answer_removes_nothing(
    two_runs: tuple[Record, dict[str, Manifest], dict[str, Manifest]],
    world: World,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, _, earlier = two_runs
    register = Path(earlier["register/cosyvoice2.tiny-llm"].uri) / MANIFEST
    told = json.loads(register.read_text())
    told["details"]["mlflow_uri"] = f"sqlite:///{world.folder}/no-such.db"
    register.write_text(json.dumps(told))
    assert gc(capsys, world.data) == []
    assert main(["gc", "--data-root", str(world.data), "--mlflow_uri", "sqlite:////no/such.db"]) == 1


def test_bad_options(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gc", "--data-root", str(world.folder), "--older-than", "a week"]) == 2
    assert capsys.readouterr().err.startswith("error: --older-than: a week is no age; write")
    assert main(["gc", "--data-root", str(world.data / "none")]) == 1
    assert find_work(STAGES["download"], world.record(), "dev", [], Digests()).finished is None
