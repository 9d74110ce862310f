"""Equal work is done once, interrupted work goes on, deleted work is noticed, and manifests tell what came of what."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cosyflow import __version__
from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.run.definition import Job, Stage
from cosyflow.run.execute import IMAGE_VARIABLE, NEWEST, RUN_VARIABLE, execute, find_work, is_skipped, skipped
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES, position
from cosyflow.stage import Manifest, StageResult, find_finished
from tests.unit.run.world import World, finish

DOWNLOAD, PREPARE = STAGES["download"], STAGES["prepare"]


class Work:
    """A stage's work that counts how often it is done."""

    def __init__(self, rejects: int = 0) -> None:
        self.folders: list[str] = []
        self.rejects = rejects

    def __call__(self, job: Job) -> StageResult:
        self.folders.append(job.output)
        (Path(job.output) / "text").write_text(f"{job.name}: hello")
        counts = {"inputs": 10, "outputs": 10 - self.rejects, "rejects": self.rejects}
        return StageResult(counts, ["text"], details={"rate": 0.5})


def do(work: Callable[[Job], StageResult], record: Record, stage: Stage = PREPARE, name: str = "dev") -> Manifest:
    """The stage, after the download that it works on."""
    inputs = [finish(record, "download")[f"download/{name}"]] if stage.inputs else []
    return execute(find_work(replace(stage, work=work), record, name, inputs, Digests(record.digests)), record)


def test_equal_work_is_done_once(world: World) -> None:
    work = Work()
    first, second = do(work, world.record()), do(work, world.record(num_workers=9))
    assert len(work.folders) == 1
    assert (first.reused, second.reused) == (False, True)
    assert replace(second, reused=False) == first


def test_other_settings_make_other_outputs(world: World) -> None:
    work = Work()
    assert do(work, world.record()).uri != do(work, world.record(instruct="Whisper.")).uri
    assert len(work.folders) == 2


def test_a_new_version_of_the_code_makes_other_outputs(world: World) -> None:
    work = Work()
    old, new = do(work, world.record()), do(work, world.record(), replace(PREPARE, version=PREPARE.version + 1))
    assert old.uri != new.uri
    assert (old.version, new.version) == (PREPARE.version, PREPARE.version + 1)


@pytest.mark.parametrize("damage", ["delete", "shorten"])
def test_a_lost_output_is_made_again_in_its_place(world: World, damage: str) -> None:
    work = Work()
    text = Path(do(work, world.record()).uri) / "text"
    if damage == "delete":
        text.unlink()
    else:
        text.write_text("short")
    assert not do(work, world.record()).reused
    assert len(set(work.folders)) == 1
    assert len(work.folders) == 2


def test_a_file_lost_from_a_folder_of_outputs_is_noticed(world: World) -> None:
    calls = []

    def unpack(job: Job) -> StageResult:
        calls.append(job.output)
        (Path(job.output) / "LibriTTS").mkdir(exist_ok=True)
        for name in ("a.wav", "b.wav"):
            (Path(job.output) / "LibriTTS" / name).write_bytes(b"RIFF")
        return StageResult({}, [], folders=["LibriTTS"], digest="of the archive")

    manifest = do(unpack, world.record(), DOWNLOAD)
    assert manifest.folders == {"LibriTTS": [2, 8]}
    assert do(unpack, world.record(), DOWNLOAD).reused
    (Path(manifest.uri) / "LibriTTS" / "b.wav").unlink()
    assert not do(unpack, world.record(), DOWNLOAD).reused
    assert len(calls) == 2


@pytest.mark.parametrize("text", ['{"layout": "of another version"}', "{", "[]"])
def test_work_with_a_manifest_that_is_none_is_done_again(world: World, text: str) -> None:
    work = Work()
    manifest = do(work, world.record())
    (Path(manifest.uri) / "manifest.json").write_text(text)
    assert find_finished(manifest.uri) is None
    assert not do(work, world.record()).reused


def test_interrupted_work_goes_on_in_the_same_folder(world: World) -> None:
    folders = []

    def interrupted(job: Job) -> StageResult:
        folders.append(job.output)
        (Path(job.output) / "part-0").write_text("done")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(interrupted, world.record())
    assert not list(Path(folders[0]).parent.glob("latest.json"))
    work = Work()
    assert not do(work, world.record()).reused
    assert work.folders == folders
    assert (Path(folders[0]) / "part-0").exists()


def test_people_find_the_newest_output_beside_the_keys_and_by_recipe(world: World) -> None:
    work = Work()
    do(work, world.record())
    newest = do(work, world.record(instruct="Whisper."))
    assert Manifest.read(f"{world.data}/prepare/dev/latest.json") == newest
    link = world.data / NEWEST / "cosyvoice2.tiny" / "prepare" / "dev"
    assert link.resolve() == Path(newest.uri)
    assert (link / "text").read_text() == "dev: hello"
    assert not list(link.parent.glob(".*"))
    world.data.rename(world.folder / "moved")  # the link goes with its data
    assert (world.folder / "moved" / NEWEST / "cosyvoice2.tiny" / "prepare" / "dev" / "text").exists()


def test_a_manifest_tells_what_was_made_of_what_by_whom(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run-1")
    monkeypatch.setenv(IMAGE_VARIABLE, "cosyflow@sha256:1")
    record = world.record(ui_url="http://kubeflow/")
    downloaded = finish(record, "download")["download/dev"]
    made = do(Work(), record)
    written = Manifest.read(f"{made.uri}/manifest.json")
    assert written == made
    assert (made.stage, made.name, made.uri) == ("prepare", "dev", f"{world.data}/prepare/dev/{made.key}")
    assert (made.inputs, made.sources) == ([downloaded.digest], [downloaded.uri])
    assert made.files == {"text": len("dev: hello")}
    assert made.digests == {"text": hashlib.sha256(b"dev: hello").hexdigest()}
    limits = {"min_level": -50.0, "max_cancelled": 20.0, "max_clipped": 0.01, "max_dc": 0.05}
    assert made.settings == {"place": f"{world.speech}/dev", "instruct": "", "limits": limits}
    assert (made.counts["outputs"], made.details) == (10, {"rate": 0.5})
    assert (made.record, made.version) == (record.uri, PREPARE.version)
    assert made.made_by["cosyflow"] == __version__
    assert (made.made_by["run"], made.made_by["image"]) == ("run-1", "cosyflow@sha256:1")
    assert made.made_by["url"] == "http://kubeflow/#/runs/details/run-1"


def test_equal_outputs_have_an_equal_digest(world: World) -> None:
    """What comes after work that turned out the same need not be done again."""
    one, other = do(Work(), world.record()), do(Work(), world.record(instruct="Whisper."))
    assert one.key != other.key
    assert one.digest == other.digest


def test_more_rejects_than_allowed_are_refused_and_fewer_reused(world: World) -> None:
    work = Work(rejects=2)
    do(work, world.record(max_reject_share=0.2))
    assert do(work, world.record(max_reject_share=0.5)).reused
    with pytest.raises(RefusalError, match=r"max_reject_share: 0.1 is less than 2 of 10 utterances, which prepare dev"):
        do(work, world.record(max_reject_share=0.1))
    assert len(work.folders) == 1


def test_stand_ins_are_marked_in_everything_made_with_them(world: World) -> None:
    record = world.record()
    marked = replace(finish(record, "download")["download/dev"], stand_ins=True)
    made = execute(find_work(replace(PREPARE, work=Work()), record, "dev", [marked], Digests()), record)
    assert made.stand_ins


@pytest.mark.parametrize(("stage", "given"), [("prepare", []), ("prepare", ["prepare"]), ("merge", ["prepare"])])
def test_outputs_of_another_stage_are_not_taken(world: World, stage: str, given: list[str]) -> None:
    made = finish(world.record(), "prepare")
    inputs = [made[f"{name}/dev"] for name in given]
    with pytest.raises(
        CosyFlowError, match=f"{stage} dev: got the outputs of {', '.join(given) or 'nothing'}, it works"
    ):
        find_work(STAGES[stage], world.record(), "dev", inputs, Digests())


def test_what_was_not_made_is_known_as_such() -> None:
    assert is_skipped(skipped(PREPARE, "dev"))
    assert not is_skipped(Manifest("prepare", "dev", "k", "u", "d", {}, {}, {}, {}, [], {}, 0.0, stand_ins=False))


def test_positions_count_the_stages_from_one() -> None:
    assert [position(stage) for stage in STAGES] == [f"{place}/10" for place in range(1, 11)]


def test_equal_work_at_the_same_time_is_done_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    work, record = Work(), world.record()
    inputs = [finish(record, "download")["download/dev"]]
    first, second = (find_work(replace(PREPARE, work=work), record, "dev", inputs, Digests()) for _ in range(2))
    assert first.finished is second.finished is None, "both find nothing done"
    made, reused = execute(first, record), execute(second, record)
    assert (made.reused, reused.reused) == (False, True)
    assert len(work.folders) == 1
    assert "meanwhile: reuses" in capsys.readouterr().out


def test_what_killed_attempts_were_writing_is_removed(world: World) -> None:
    def work(job: Job) -> StageResult:
        assert [path.name for path in Path(job.output).rglob("*.part")] == [".not-ours.part"]
        return Work()(job)

    record = world.record()
    inputs = [finish(record, "download")["download/dev"]]
    found = find_work(replace(PREPARE, work=work), record, "dev", inputs, Digests())
    for name in (".text.0123456789ab.part", "parts/.000001.json.ba9876543210.part", ".not-ours.part"):
        path = Path(found.folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    execute(found, record)
