"""The table of stages, and what they know of machines, archives, registries and names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosyflow.content import Digests
from cosyflow.run import processes
from cosyflow.run.config import RESOURCE_STAGES
from cosyflow.run.definition import Job
from cosyflow.run.processes import num_processes
from cosyflow.run.space import too_little_space
from cosyflow.run.stages import STAGES, download, parquet
from cosyflow.run.stages.download import source_folder
from cosyflow.run.stages.register import models_of
from cosyflow.run.stages.registry import why_unreachable
from cosyflow.stage import Manifest, StageResult
from tests.unit.run.world import World, finish

LLM = "cosyvoice2.tiny-llm"


def manifest(stage: str, uri: str, *files: str) -> Manifest:
    return Manifest(stage, "m", "key", uri, "digest", {}, dict.fromkeys(files, 1), {}, {}, [], {}, 0.0, stand_ins=False)


def test_the_stages_have_their_numbers_and_order() -> None:
    assert {stage.name: stage.number for stage in STAGES.values()} == {
        "download": -1, "prepare": 0, "speaker-embedding": 1, "speech-token": 2, "parquet": 3, "merge": 5, "train": 5,
        "average": 6, "export": 7, "register": 7,
    }  # fmt: skip
    for place, stage in enumerate(STAGES.values()):
        assert all(list(STAGES).index(before) < place for before in stage.inputs)


@pytest.mark.parametrize(
    ("start", "stop", "selected", "beyond"),
    [
        (-1, 7, 10, 0),
        (-1, 3, 5, 5),
        (5, 5, 2, 3),
        (7, 7, 2, 0),
        (4, 4, 0, 5),
    ],
)
def test_the_range_says_which_stages_work(world: World, start: int, stop: int, selected: int, beyond: int) -> None:
    record = world.record(start_stage=start, stop_stage=stop)
    assert sum(stage.is_selected(record) for stage in STAGES.values()) == selected
    assert sum(stage.is_beyond(record) for stage in STAGES.values()) == beyond


def test_what_all_versions_make_alike_lies_in_one_place(world: World) -> None:
    record = world.record()
    places = {name: stage.place(record, "x").removeprefix(f"{world.data}/") for name, stage in STAGES.items()}
    assert {name for name, place in places.items() if not place.startswith("cosyvoice2/")} == {
        "download", "prepare", "speaker-embedding",
    }  # fmt: skip
    assert (places["prepare"], places["parquet"]) == ("prepare/x", "cosyvoice2/parquet/x")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["llm.forward.fp32.zip", "llm.forward.fp32.onnx"], ["m-torchscript", "m-onnx"]),
        (
            ["flow.encoder.fp32.zip", "flow.encoder.fp16.zip", "flow.decoder.estimator.fp32.onnx"],
            ["m-flow.encoder.fp16", "m-flow.encoder.fp32", "m-onnx"],
        ),
        (["hift.pt"], ["m-generator"]),
        (["hift.pt", "notes.txt"], ["m-generator"]),
    ],
)
def test_every_exported_file_has_a_registered_name_of_its_own(files: list[str], names: list[str]) -> None:
    models = models_of("m", manifest("average", "/a", "llm.pt"), manifest("export", "/e", *files))
    assert list(models) == ["m", *names]
    assert models["m"] == "/a/llm.pt"
    assert sorted(models.values())[1:] == sorted(f"/e/{file}" for file in files if file != "notes.txt")


@pytest.mark.parametrize(
    ("quota", "cores", "expected"),
    [("max 100000", 8, 8), ("250000 100000", 8, 3), ("50000 100000", 8, 1), ("900000 100000", 4, 4), (None, 6, 6)],
)
def test_a_process_for_each_core_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str | None, cores: int, expected: int
) -> None:
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(processes, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert num_processes(0) == expected
    assert num_processes(17) == 17


def test_a_disk_that_cannot_hold_the_archives_is_named(world: World) -> None:
    free = shutil.disk_usage(world.folder).free
    assert list(too_little_space(world.record(), 0)) == []
    (problem,) = too_little_space(world.record(), free * 2)
    assert (problem.setting, problem.is_warning) == ("data_root", False)
    assert "make room, or give a folder on another disk" in problem.text
    (warning,) = too_little_space(world.record(data_root="s3://bucket/data"), 10**9)
    assert warning.is_warning


def test_archives_that_are_there_are_not_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a server looked for that may be gone by now."""
    record = world.record(data_url="http://127.0.0.1:9/60")
    assert [problem.setting for problem in download.check(record)] == ["data_url"]
    made = finish(record, "download")["download/dev"]
    assert list(download.check(record)) == []
    assert source_folder(made) == f"{made.uri}/LibriTTS/dev"


def test_an_archive_is_fetched_into_the_folder_of_the_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from cosyflow.corpus import download as fetching

    monkeypatch.setattr(fetching, "download_subset", lambda *given: StageResult({}, [], details={"given": given}))
    record = world.record(data_url="http://127.0.0.1:9/60")
    made = STAGES["download"].work(Job(record, "dev", (), "/output"))
    assert made.details["given"] == ("dev", "http://127.0.0.1:9/60", "/output")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1:9", "does not answer"),
        ("http://", "does not answer"),
        ("registry", "not the address of a model registry"),
        ("postgresql://host/mlflow", ""),
        ("sqlite:///{folder}/new/mlflow.db", ""),
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:////proc/sys/mlflow.db", "cannot be written"),
    ],
)
def test_a_registry_is_looked_at_without_mlflow(tmp_path: Path, uri: str, said: str) -> None:
    found = why_unreachable(uri.format(folder=tmp_path))
    assert said in found
    assert bool(said) == bool(found)


def test_f0_is_measured_where_it_is_read(world: World) -> None:
    assert [parquet.f0_method(world.record(model=part)) for part in ("llm", "flow", "hifigan")] == [
        "none",
        "none",
        "harvest",
    ]
    assert parquet.f0_method(world.record(f0="fast")) == "fast"


Call = Callable[..., StageResult]


@pytest.mark.parametrize(
    ("stage", "function", "expected"),
    [
        ("speaker-embedding", "cosyflow.extract.speaker_embedding.extract_speaker_embeddings",
         ["prepare/dev", "/output", "pretrained/campplus.onnx"]),
        ("speech-token", "cosyflow.extract.speech_token.extract_speech_tokens",
         ["prepare/dev", "/output", "pretrained/speech_tokenizer_v2.onnx"]),
        ("parquet", "cosyflow.dataset.parquet.make_parquet",
         ["prepare/dev", "speaker-embedding/dev", "speech-token/dev", "/output"]),
    ],
)  # fmt: skip
def test_the_extraction_is_told_what_the_run_says(
    world: World, monkeypatch: pytest.MonkeyPatch, stage: str, function: str, expected: list[str]
) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def called(*given: Any, **settings: Any) -> StageResult:
        calls.append((given, settings))
        return StageResult({}, [])

    monkeypatch.setattr(function, called)
    record = world.record(num_processes=3, max_reject_share=0.5, num_utts_per_parquet=7, f0="fast")
    made = finish(record, "speech-token")
    inputs = tuple(made[f"{before}/dev"] for before in STAGES[stage].inputs)
    STAGES[stage].work(Job(record, "dev", inputs, "/output"))
    ((given, settings),) = calls
    known = {label: each.uri for label, each in made.items()} | {"/output": "/output"}
    assert list(given) == [known.get(each, f"{world.folder}/{each}") for each in expected]
    assert (settings["num_processes"], settings["max_reject_share"]) == (3, 0.5)
    if stage == "parquet":
        assert (settings["num_utts_per_parquet"], settings["f0"], settings["reject_token_dir"]) == (7, "fast", None)
        assert settings["alignment"].identity == parquet.settings(record, "dev", Digests()).alignment


@pytest.mark.medium
def test_shards_are_named_by_all_that_went_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sample may leave tokens, embeddings and sizes as they were, and is other speech to a vocoder."""
    from cosyflow.dataset import parquet as making

    monkeypatch.setattr(making, "make_parquet", lambda *given, **settings: StageResult({}, [], digest="of sizes"))

    def digest(prepared: str, **changed: Any) -> str | None:
        record = world.record(**changed)
        made = finish(record, "speech-token")
        inputs = [made[f"{before}/dev"] for before in STAGES["parquet"].inputs]
        inputs[0] = replace(inputs[0], digest=prepared)
        return STAGES["parquet"].work(Job(record, "dev", tuple(inputs), "/output")).digest

    assert digest("one") == digest("one", data_root=str(world.folder / "elsewhere"))
    assert digest("one") != digest("other")
    assert digest("one") != digest("one", f0="fast")


@pytest.mark.medium
def test_lists_are_named_by_the_data_and_not_by_their_places(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from cosyflow.dataset import merge

    result = StageResult({"train_utterances": 1, "dev_utterances": 1}, ["train.data.list"])
    monkeypatch.setattr(merge, "merge_lists", lambda *given: result)

    def digest(**changed: Any) -> str | None:
        record = world.record(**changed)
        made = finish(record, "parquet")
        names = (*record.subsets.train, *record.subsets.dev)
        job = Job(record, "lists", tuple(made[f"parquet/{name}"] for name in names), "/output")
        return STAGES["merge"].work(job).digest

    assert digest() == digest(data_root=str(world.folder / "elsewhere"))
    assert digest() != digest(num_utts_per_parquet=7)
    assert digest() != digest(train_subsets=["train-b", "train-a"])
    assert digest() != digest(train_subsets=["train-a"], dev_subsets=["train-b", "dev"])


def test_resources_name_the_tasks_of_the_graph() -> None:
    assert (*STAGES, "plan", "report") == (*RESOURCE_STAGES[1:-1], RESOURCE_STAGES[0], RESOURCE_STAGES[-1])
