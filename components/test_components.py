"""Every component does the work of its stage on what the graph gives it, and refuses anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.conftest import MODEL, UTTERANCES, Chain, artifacts_of, names_of
from cosyflow.run.ends import read_ends
from cosyflow.run.execute import RUN_VARIABLE
from cosyflow.run.stages import STAGES


def marked(stage: str, *rest: str, needs: str = "") -> Any:
    """A case of a test, marked by what its stage, or one that it needs, takes: a training, an extraction, or less."""
    stages = {stage, needs or stage}
    if any(STAGES[each].per == "part" for each in stages):
        return pytest.param(stage, *rest, marks=[pytest.mark.slow])
    return pytest.param(stage, *rest, marks=[] if stages <= {"download", "prepare"} else [pytest.mark.medium])


WRONG = {"prepare": "speech-token"}
"""Whose outputs a stage is given by mistake, where those of the download would be right."""
WORKS = [marked(stage, name) for stage in STAGES for name in names_of(stage)]
TAKES = [
    marked(stage, artifact, needs=WRONG.get(stage, "download"))
    for stage in STAGES
    for artifact in artifacts_of(stage, "inputs")
]


@pytest.mark.parametrize(("stage", "name"), WORKS)
def test_a_component_does_its_stages_work_and_describes_it(stage: str, name: str, chain: Chain) -> None:
    manifest = chain.manifest(stage, name)
    assert (manifest.stage, manifest.name, manifest.reused) == (stage, name, False)
    assert all((Path(manifest.uri) / file).stat().st_size == size for file, size in manifest.files.items())
    assert artifacts_of(stage, "outputs")[0] == STAGES[stage].makes
    made, metrics = (chain.made(stage, name)[artifact] for artifact in artifacts_of(stage, "outputs"))
    assert made.metadata["uri"] == manifest.uri
    assert made.metadata["digest"] == manifest.digest
    assert metrics.metadata.items() >= {**manifest.counts, "seconds": manifest.seconds}.items()


@pytest.mark.parametrize(("stage", "name"), WORKS)
def test_a_component_works_on_what_the_stages_before_it_made(stage: str, name: str, chain: Chain) -> None:
    if STAGES[stage].per == "run":
        expected = [chain.manifest("parquet", subset) for subset in ("train-a", "train-b", "dev")]
    else:
        expected = [
            chain.manifest(before, name if name in names_of(before) else names_of(before)[0])
            for before in STAGES[stage].inputs
        ]
    manifest = chain.manifest(stage, name)
    assert manifest.sources == [before.uri for before in expected]
    assert manifest.inputs == [before.digest for before in expected]


@pytest.mark.parametrize(
    "stage", [marked(stage) for stage in STAGES if STAGES[stage].per == "subset" and stage != "download"]
)
def test_no_utterance_is_lost(stage: str, chain: Chain) -> None:
    assert {subset: chain.manifest(stage, subset).counts["outputs"] for subset in UTTERANCES} == UTTERANCES


@pytest.mark.slow
def test_the_model_is_registered_with_its_exports(chain: Chain) -> None:
    versions = chain.manifest("register", MODEL).details["versions"]
    assert versions.keys() >= {MODEL, f"{MODEL}-onnx", f"{MODEL}-torchscript"}


@pytest.mark.parametrize(("stage", "name"), WORKS)
def test_called_again_a_component_returns_the_same(stage: str, name: str, chain: Chain) -> None:
    chain.made(stage, name)
    before = {path: path.stat().st_mtime_ns for path in (chain.folder / "data").rglob("manifest.json")}
    again = chain.call(stage, name)[STAGES[stage].makes]
    assert again.metadata["reused"] is True
    assert again.metadata["digest"] == chain.manifest(stage, name).digest
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(("stage", "artifact"), TAKES)
def test_an_artifact_of_another_stage_is_refused_by_name(
    stage: str, artifact: str, chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    name = names_of(stage)[0]
    wrong = WRONG.get(stage, "download")
    other = chain.made(wrong, names_of(wrong)[0])[STAGES[wrong].makes]
    given: dsl.Artifact | list[dsl.Artifact] = other
    if STAGES[stage].per == "run":
        given = [*chain.inputs(stage, name)[artifact][1:], other]
    refused(chain, stage, name, capsys, wrong, **{artifact: given})


@pytest.mark.parametrize(
    ("stage", "one", "other"),
    [
        marked("parquet", "embeddings", "tokens"),
        marked("parquet", "kaldi_files", "tokens"),
        marked("register", "averaged_model", "exported_model"),
    ],
)
def test_exchanged_inputs_are_refused(
    stage: str, one: str, other: str, chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    name = names_of(stage)[0]
    given = chain.inputs(stage, name)
    makers = [each.name for each in STAGES.values() if each.makes in (one, other)]
    refused(chain, stage, name, capsys, *makers, **{one: given[other], other: given[one]})


def refused(
    chain: Chain, stage: str, name: str, capsys: pytest.CaptureFixture[str], *named: str, **inputs: object
) -> None:
    """The component ends with status 1; one line names the work, what came, and what should have come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN_VARIABLE, "refused")
        with pytest.raises(SystemExit, match=r"^1$"):
            chain.call(stage, name, **inputs)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "failed: " in line]
    assert line.startswith(f"[{stage} {name}] failed: {stage} {name}: got the outputs of ")
    came, _, wanted = line.partition("it works on those of ")
    assert all(stage in came for stage in named)
    assert wanted.startswith(", ".join(STAGES[stage].inputs) or STAGES[stage].inputs[0])


@pytest.mark.medium
def test_lists_without_one_of_the_subsets_are_refused(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    shards = chain.inputs("merge", "lists")["shards"]
    with pytest.raises(SystemExit, match=r"^1$"):
        chain.call("merge", "lists", shards=[shards[0], *shards[2:]])
    assert "train-b" in capsys.readouterr().out


@pytest.mark.medium
def test_inputs_of_two_subsets_are_not_mixed(chain: Chain) -> None:
    tokens = chain.made("speech-token", "dev")["tokens"]
    with pytest.raises(SystemExit, match=r"^1$"):
        chain.call("parquet", "train-a", tokens=tokens)


def test_a_failure_is_left_for_the_report_until_the_task_succeeds(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "tried twice")
    with pytest.raises(SystemExit):
        chain.call("prepare", "test", speech=chain.made("prepare", "test")["kaldi_files"])
    ((end,), _) = read_ends(chain.settings["data_root"], "tried twice")
    assert (end.stage, end.name, end.state) == ("prepare", "test", "failed")
    assert end.error == "prepare test: got the outputs of prepare, it works on those of download"
    chain.call("prepare", "test")
    ((end,), _) = read_ends(chain.settings["data_root"], "tried twice")
    assert (end.state, end.error) == ("reused", "")


def test_the_last_line_of_a_task_says_why_it_failed(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubeflow shows the last lines; what nobody foresaw is there in one line, below its traceback."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("cosyflow.run.execute.find_work", fails)
    with pytest.raises(SystemExit, match=r"^1$"):
        chain.call("prepare", "test")
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "[prepare test] failed: ZeroDivisionError: by nothing"
    assert "Traceback" in said.err
