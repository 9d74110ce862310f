"""`cosyflow models` tells versions, what they were made of and how they differ, and finds what was changed since."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cosyflow import storage
from cosyflow.cli import main
from cosyflow.release.history import read_chain
from cosyflow.release.register import register_models
from cosyflow.stage import MANIFEST, Manifest
from tests.finished_chain import MODEL, Pipeline

pytestmark = pytest.mark.medium


@pytest.fixture(autouse=True)
def environment(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(str(tmp_path / "data"))


def models(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The JSON document of a command that ends well."""
    capsys.readouterr()
    assert main(["models", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], str]:
    """The lines on standard output, and the error, of a command that ends with status 1."""
    capsys.readouterr()
    assert main(["models", *words]) == 1
    output = capsys.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("cosyflow models: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in output.err
    return output.out.splitlines(), errors[0]


def find(folder: Manifest, stage: str) -> Manifest:
    return next(manifest for manifest in read_chain(folder.uri) if manifest.stage == stage)


def flip_a_byte(uri: str) -> None:
    data = bytearray(storage.read_bytes(uri))
    data[0] ^= 1
    storage.write_bytes(uri, bytes(data))


def test_list_tells_the_versions_newest_first(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pipeline.register(registry)
    second = replace(pipeline, epochs=3, commit="b" * 40).register(registry)
    newest, oldest = models(capsys, "list", MODEL, "--mlflow_uri", registry)
    assert newest.pop("registered").endswith("Z")
    assert newest == {
        "name": MODEL,
        "version": 2,
        "aliases": ["candidate"],
        "git_commit": "b" * 40,
        "data_digest": find(second, "merge").digest,
        "parent_version": 1,
    }
    assert (oldest["version"], oldest["aliases"]) == (1, [])
    assert oldest["data_digest"] == find(first, "merge").digest


def test_the_registry_of_the_environment_is_the_default(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.register(registry)
    assert [version["version"] for version in models(capsys, "list", MODEL)] == [1]


def test_every_version_is_listed_however_many_there_are(
    registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosyflow.release.registry.PAGE", 2)
    (tmp_path / "llm.pt").write_bytes(b"weights")
    for count in range(5):
        register_models({"llm": str(tmp_path / "llm.pt")}, str(tmp_path / str(count)), registry, {})
    assert [version["version"] for version in models(capsys, "list", "llm")] == [5, 4, 3, 2, 1]


def test_lineage_leads_from_register_to_the_archives(
    registry: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registered = Pipeline(folder).register(registry)
    links = models(capsys, "lineage", MODEL, "--verify")
    assert links[0] == {
        "stage": "register",
        "name": MODEL,
        "key": registered.key,
        "digest": registered.digest,
        "uri": registered.uri,
        "inputs": registered.inputs,
    }
    digests = {link["digest"] for link in links}
    assert all(digest in digests for link in links for digest in link["inputs"])
    assert {link["name"] for link in links if not link["inputs"]} == {"train-a", "dev-a"}
    assert {link["stage"] for link in links if not link["inputs"]} == {"download"}
    merge = next(link for link in links if link["stage"] == "merge")
    assert MlflowClient(registry, registry).get_model_version(MODEL, "1").tags["data_digest"] == merge["digest"]


def test_lineage_is_of_the_newest_version_or_of_the_one_asked_for(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pipeline.register(registry)
    second = replace(pipeline, epochs=3).register(registry)
    assert models(capsys, "lineage", MODEL)[0]["key"] == second.key
    assert models(capsys, "lineage", MODEL, "1")[0]["key"] == first.key


def test_lineage_for_people_shows_archives_with_their_checksums(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    registered = pipeline.register(registry)
    capsys.readouterr()
    assert main(["models", "lineage", MODEL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{MODEL} version 1 (candidate), registered ")
    assert lines[1].split() == ["register", MODEL, registered.digest[:12], registered.uri]
    downloaded = next(index for index, line in enumerate(lines) if line.strip().startswith("download train-a"))
    told = [line.strip() for line in lines[downloaded + 1 : downloaded + 4]]
    assert told == ["archive https://example.org/train-a.tar.gz", f"sha256 {'6' * 64}", f"md5 {'5' * 32}"]


@pytest.mark.parametrize("stage", ["average", "train", "merge", "parquet", "prepare", "download"])
def test_verify_finds_a_changed_byte(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    changed = find(pipeline.register(registry), stage)
    file = storage.join(changed.uri, next(iter(changed.files)))
    flip_a_byte(file)
    lines, error = failure(capsys, "lineage", MODEL, "--verify")
    assert [line for line in lines if "differs" in line] == [
        f"{file}: differs: SHA-256 {storage.digest(file)}, not {next(iter(changed.digests.values()))}"
    ]
    assert "version 1: 1 difference" in error


def test_verify_finds_a_changed_byte_in_a_store(
    registry: str, s3_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = find(Pipeline(s3_folder).register(registry), "parquet")
    file = storage.join(changed.uri, "shard.tar")
    flip_a_byte(file)
    lines, _ = failure(capsys, "lineage", MODEL, "--verify")
    assert [line for line in lines if "differs" in line] == [
        f"{file}: differs: SHA-256 {storage.digest(file)}, not {changed.digests['shard.tar']}"
    ]


def test_verify_finds_what_is_gone(registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    registered = pipeline.register(registry)
    weights = storage.join(find(registered, "average").uri, "llm.pt")
    for lost in (weights, pipeline.record):
        storage.remove(lost)
    lines, error = failure(capsys, "lineage", MODEL, "--verify")
    assert [line for line in lines if line.endswith(": gone")] == [f"{pipeline.record}: gone", f"{weights}: gone"]
    assert "2 differences" in error


def test_verify_finds_a_file_more_in_a_folder(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    downloaded = find(pipeline.register(registry), "download")
    tree = storage.join(downloaded.uri, f"LibriTTS/{downloaded.name}")
    storage.write_text(storage.join(tree, "more.wav"), "1234")
    lines, _ = failure(capsys, "lineage", MODEL, "--verify")
    assert any(line.startswith(f"{tree}: differs: 2 files of ") for line in lines)


def test_verify_finds_what_changed_in_a_folder_of_ones_own(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("a.wav", "b.wav"):
        storage.write_text(str(tmp_path / "mine" / name), "1234")
    replace(pipeline, own_folder=str(tmp_path / "mine")).register(registry)
    assert main(["models", "lineage", MODEL, "--verify"]) == 0
    assert f"folder {tmp_path}/mine  2 files, 8 bytes" in capsys.readouterr().out
    storage.write_text(str(tmp_path / "mine" / "b.wav"), "1235")
    lines, _ = failure(capsys, "lineage", MODEL, "--verify")
    assert any(line.startswith(f"{tmp_path}/mine: differs: the speech has the digest") for line in lines)
    storage.remove(str(tmp_path / "mine" / "b.wav"))
    lines, _ = failure(capsys, "lineage", MODEL, "--verify")
    assert f"{tmp_path}/mine: differs: 1 files of 4 bytes, not 2 of 8" in lines


def test_verify_goes_by_the_manifests_digest_where_files_have_none(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = find(pipeline.register(registry), "prepare")
    place = storage.join(prepared.uri, MANIFEST)
    storage.write_text(place, replace(prepared, digests={}).to_json())
    assert main(["models", "lineage", MODEL, "--verify"]) == 0
    flip_a_byte(storage.join(prepared.uri, "text"))
    lines, _ = failure(capsys, "lineage", MODEL, "--verify")
    assert any(line.startswith(f"{place}: the files have the digest ") for line in lines)


def test_verify_finds_a_tag_that_tells_other_data(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.register(registry)
    MlflowClient(registry, registry).set_model_version_tag(MODEL, "1", "data_digest", "d" * 64)
    lines, _ = failure(capsys, "lineage", MODEL, "--verify")
    assert any(line.startswith(f"tag data_digest: {'d' * 64} is not ") for line in lines)


def test_json_of_a_history_that_does_not_verify_is_still_one_document(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = find(pipeline.register(registry), "average")
    flip_a_byte(storage.join(changed.uri, "llm.pt"))
    lines, error = failure(capsys, "lineage", MODEL, "--verify", "--format", "json")
    assert json.loads("\n".join(lines))[0]["stage"] == "register"
    assert "llm.pt: differs" in error


def test_outputs_that_were_made_again_are_not_taken_for_those_that_went_in(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = find(pipeline.register(registry), "train")
    other = replace(trained, digest="d" * 64)
    storage.write_text(storage.join(trained.uri, MANIFEST), other.to_json())
    lines, _ = failure(capsys, "lineage", MODEL)
    assert any(f"{'d' * 64} is not {trained.digest}, of which average" in line for line in lines)


def test_diff_tells_settings_data_code_and_metrics(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    first = pipeline.register(registry)
    changes = {"epochs": 3, "average_num": 1, "loss": 4.25, "commit": "b" * 40, "version": 2, "image": "train:2"}
    second = replace(pipeline, speech={"dev-a": "other"}, **changes).register(registry)
    found = models(capsys, "diff", MODEL, "1", "2")
    assert found["settings"] == {
        "average_num": [5, 1],
        "train_conf.max_epoch": [2, 3],
    }
    parquets = [
        next(each.digest for each in read_chain(version.uri) if (each.stage, each.name) == ("parquet", "dev-a"))
        for version in (first, second)
    ]
    assert found["data"] == {
        "merge": [find(first, "merge").digest, find(second, "merge").digest],
        "subsets": {"dev-a": parquets},
    }
    assert found["code"]["commits"]["train"] == ["a" * 40, "b" * 40]
    assert found["code"]["images"]["export"] == ["cosyflow-train:1", "train:2"]
    assert found["code"]["versions"]["merge"] == [1, 2]
    assert found["metrics"] == {"cv_loss_last": [4.5, 4.25]}


def test_diff_of_a_version_with_itself_is_empty(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.register(registry)
    assert models(capsys, "diff", MODEL, "1", "1") == {"settings": {}, "data": {}, "code": {}, "metrics": {}}


def test_diff_for_people_has_a_line_for_each_difference(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.register(registry)
    replace(pipeline, subsets=("train-a", "train-b", "dev-a"), loss=4.25).register(registry)
    capsys.readouterr()
    assert main(["models", "diff", MODEL, "1", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "settings: as before"
    assert any(line.startswith("  subsets train-b: - -> ") for line in lines)
    assert lines[-1] == "  cv_loss_last: 4.5 -> 4.25"


def test_a_broken_chain_names_the_manifest_that_is_gone(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = find(pipeline.register(registry), "prepare")
    storage.remove(prepared.uri)
    _, error = failure(capsys, "lineage", MODEL)
    assert f"{storage.join(prepared.uri, MANIFEST)}: gone" in error
    assert f"speech-token {prepared.name} was made of it" in error


def test_a_version_without_a_history_is_told(registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = MlflowClient(registry, registry)
    client.create_registered_model("llm")
    client.create_model_version("llm", tmp_path.as_uri())
    _, error = failure(capsys, "lineage", "llm")
    assert "llm version 1: has no tag registered_from" in error


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["list", "other"], f"other: no such model in the registry sqlite:////.*; there are {MODEL}"),
        (["lineage", MODEL, "7"], f"{MODEL}: no version 7 in the registry; there are 1"),
        (["diff", MODEL, "1", "2"], f"{MODEL}: no version 2 in the registry; there are 1"),
        (["list", MODEL, "--mlflow_uri", "sqlite:////none/m.db"], "no such model registry; /none/m.db does not exist"),
    ],
    ids=["name", "version", "second version", "registry"],
)
def test_what_is_unknown_is_named(
    registry: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    pipeline.register(registry)
    _, error = failure(capsys, *words)
    assert re.search(complaint, error)


def test_help_does_not_import_mlflow() -> None:
    code = (
        "import sys\nfrom cosyflow.cli import main\n"
        "try:\n    main(['models', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
