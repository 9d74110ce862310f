"""What a run hands on is what its own settings name, never what happens to lie there; a gap is told with both sides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.run.chain import Link, earlier_work, inputs_of, walk, why_broken
from cosyflow.run.plan import plan
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from tests.unit.run.world import World, finish

LLM = "cosyvoice2.tiny-llm"
OTHER_RATE = {"overrides": ["train_conf.optim_conf.lr=0.5"]}


def links(record: Record) -> dict[str, Link]:
    return {link.label: link for link in walk(record, Digests(record.digests))}


def broken(world: World, **changed: Any) -> list[str]:
    """What a plan says of the gaps in a chain."""
    with pytest.raises(RefusalError) as refusal:
        plan({**world.settings, **changed})
    assert {problem.setting for problem in refusal.value.problems} == {"start_stage"}
    return [problem.text for problem in refusal.value.problems]


def test_every_stage_works_on_what_it_needs(world: World) -> None:
    record = world.record(test_subsets=["train-c"], dev_subsets=["dev"])

    def before(stage: str, name: str) -> list[str]:
        return [f"{before.name}/{subset}" for before, subset in inputs_of(STAGES[stage], name, record)]

    assert before("download", "dev") == []
    assert before("prepare", "train-c") == ["download/train-c"]
    assert before("parquet", "dev") == ["prepare/dev", "speaker-embedding/dev", "speech-token/dev"]
    assert before("merge", "lists") == ["parquet/train-a", "parquet/train-b", "parquet/dev"]  # not the test subset
    assert before("train", LLM) == ["merge/lists"]
    assert before("register", LLM) == [f"average/{LLM}", f"export/{LLM}"]


def test_a_chain_is_known_as_far_as_it_is_finished(world: World) -> None:
    record = world.record()
    assert [label for label, link in links(record).items() if link.work] == [
        f"download/{subset}" for subset in ("train-a", "train-b", "dev")
    ]
    made = finish(record, "parquet")
    found = links(record)
    assert {label: link.finished.uri for label, link in found.items() if link.finished} == {
        label: manifest.uri for label, manifest in made.items()
    }
    assert found["merge/lists"].work is not None
    assert found["merge/lists"].finished is None
    assert found[f"train/{LLM}"].work is None


@pytest.mark.medium
def test_a_range_of_stages_takes_the_chain_of_the_run_that_is_asked_for(world: World) -> None:
    """A newer training of other settings lies beside it, and is what `latest.json` and the link name."""
    asked = finish(world.record())
    newer = finish(world.record(**OTHER_RATE))
    train = f"train/{LLM}"
    assert asked[train].uri != newer[train].uri
    planned = plan({**world.settings, "start_stage": 6, "average_num": 3})
    (average,) = [link for link in planned.links if link.stage.name == "average"]
    assert average.work is not None
    assert average.work.inputs[0].uri == asked[train].uri
    assert [link.stage.name for link in planned.unfinished] == ["average", "export", "register"]
    assert Manifest.read(str(Path(asked[train].uri).parent / "latest.json")).uri == asked[train].uri


@pytest.mark.medium
def test_a_gap_is_told_with_both_manifests_and_the_setting(world: World) -> None:
    made = finish(world.record())
    (text,) = broken(world, start_stage=6, **OTHER_RATE)
    assert f"train/{LLM}: this run needs {world.data}/cosyvoice2/train/{LLM}/" in text
    assert f"there is {made[f'train/{LLM}'].uri}/manifest.json" in text
    assert "which differs in recipe.train_conf.optim_conf.lr: 0.5, there 0.002;" in text
    assert text.endswith("start at stage 5 (train), or earlier, or use those settings")


@pytest.mark.medium
def test_a_gap_in_a_subset_is_told_for_each(world: World) -> None:
    finish(world.record())
    texts = broken(world, start_stage=5, num_utts_per_parquet=7)
    assert len(texts) == 3
    assert all("num_utts_per_parquet: 7, there 1000;" in text for text in texts)


@pytest.mark.medium
def test_a_gap_that_comes_of_other_inputs_names_them(world: World) -> None:
    made = finish(world.record(), "merge")
    finish(world.record(num_utts_per_parquet=7), "parquet")
    (text,) = broken(world, start_stage=6, num_utts_per_parquet=7)
    assert "merge/lists: this run needs " in text
    assert f"parquet: {world.data}/cosyvoice2/parquet/train-a/" in text
    assert f"there {made['parquet/train-a'].uri}" in text


@pytest.mark.medium
def test_a_gap_that_comes_of_older_code_names_its_version(world: World) -> None:
    record = world.record()
    finish(record)
    stage = replace(STAGES["merge"], version=2)
    (old,) = [link for link in walk(record, Digests()) if link.stage.name == "merge"]
    assert old.work is not None
    link = Link(stage, old.name, replace(old.work, key="other", finished=None))
    assert "version of the code: 2, there 1" in why_broken(link, record, Digests())


@pytest.mark.medium
def test_a_lost_file_in_what_is_handed_on_is_named(world: World) -> None:
    made = finish(world.record())
    Path(made["parquet/dev"].uri, "made.txt").unlink()
    (text,) = broken(world, start_stage=5)
    assert text.startswith(f"parquet/dev: made.txt is gone from {made['parquet/dev'].uri} ")
    assert text.endswith("; start at stage 3 (parquet), or earlier")


@pytest.mark.medium
def test_files_that_a_range_does_not_read_need_not_be_there(world: World) -> None:
    made = finish(world.record())
    Path(made["parquet/dev"].uri, "made.txt").unlink()
    assert plan({**world.settings, "start_stage": 7}).unfinished == []


def test_nothing_at_all_is_told_as_such(world: World) -> None:
    texts = broken(world, start_stage=0)
    assert len(texts) == 3
    assert all("nothing finished there, nor for other settings; start at stage -1 (download)" in text for text in texts)
    link = links(world.record())[f"train/{LLM}"]
    assert "its own inputs are not finished" in why_broken(link, world.record(), Digests())


def test_what_the_run_ends_before_need_not_be_possible(world: World) -> None:
    """Neither are its inputs looked for: data can be made without the files of a training."""
    (world.pretrained / "campplus.onnx").unlink()
    planned = plan({**world.settings, "stop_stage": 0})
    assert {link.stage.name for link in planned.unfinished} == {"download", "prepare"}


def test_earlier_work_is_found_if_there_is_any(world: World) -> None:
    record = world.record()
    assert earlier_work(STAGES["merge"], record, "lists") is None
    made = finish(record, "merge")["merge/lists"]
    assert earlier_work(STAGES["merge"], record, "lists") == made
    (Path(made.uri).parent / "latest.json").write_text("{}")
    assert earlier_work(STAGES["merge"], record, "lists") is None


@pytest.mark.medium
def test_work_that_may_not_be_handed_on_refuses_the_run(world: World) -> None:
    """More rejects than the run allows, in a stage that the run does not do itself."""
    made = finish(world.record())["prepare/dev"]
    counts = {"inputs": 10, "outputs": 5, "rejects": 5}
    (Path(made.uri) / "manifest.json").write_text(replace(made, counts=counts).to_json())
    for start in (-1, 5):
        with pytest.raises(RefusalError, match=r"max_reject_share: 0\.05 is less than 5 of 10"):
            plan({**world.settings, "start_stage": start})
    assert plan({**world.settings, "max_reject_share": 0.5}).unfinished == []


def test_what_cannot_be_read_is_a_refusal_of_the_run(world: World) -> None:
    (world.speech / "dev" / "dangling").symlink_to(world.folder / "nowhere")
    with pytest.raises(RefusalError, match=r"run: .*dangling"):
        plan(world.settings)
    with pytest.raises(CosyFlowError, match="dangling"):
        walk(world.record(), Digests())
