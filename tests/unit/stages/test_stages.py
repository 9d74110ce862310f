"""What the stages share: which of them work in a run, where recipes are found, which subsets a run is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.errors import CosyFlowError
from cosyflow.stage import StageResult
from cosyflow.stages import NUMBERS, Activity, activity, position
from cosyflow.stages.parquet import _rejected_tokens
from cosyflow.stages.recipe import load_recipe, recipe_name, recipe_path, resolve_subsets
from cosyflow.stages.report import describe_counts
from cosyflow.stages.selected import is_skipped, run_selected
from cosyflow.stages.train import TrainOptions, _options_settings, _start
from tests.stage_outputs import finish_stage


def test_positions_count_the_stages_from_one() -> None:
    assert [position(stage) for stage in NUMBERS] == [f"{place}/10" for place in range(1, 11)]


@pytest.mark.parametrize(
    ("start", "stop", "working"),
    [
        (-1, 7, list(NUMBERS)),
        (-1, 3, ["download", "prepare", "speaker-embedding", "speech-token", "parquet"]),
        (5, 5, ["merge", "train"]),
        (7, 7, ["export", "register"]),
        (4, 4, []),
    ],
)
def test_the_range_says_which_stages_work(start: int, stop: int, working: list[str]) -> None:
    assert [stage for stage in NUMBERS if activity(stage, start, stop) is Activity.WORKS] == working
    before = [stage for stage in NUMBERS if activity(stage, start, stop) is Activity.HANDS_ON]
    assert before == [stage for stage in NUMBERS if NUMBERS[stage] < start]


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(CosyFlowError, match="start_stage 3 is above stop_stage 2"):
        activity("train", 3, 2)


def never(output: str) -> StageResult:
    raise AssertionError(f"worked in {output}")


def test_beyond_the_last_stage_nothing_is_made_and_nothing_fails(tmp_path: Path) -> None:
    manifest = run_selected("merge", "lists", str(tmp_path), [], {}, Activity.IS_BEYOND, never, ["cosyflow.errors"])
    assert is_skipped(manifest)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("doing", [Activity.HANDS_ON, Activity.IS_BEYOND])
def test_outside_the_range_a_finished_stage_is_handed_on(tmp_path: Path, doing: Activity) -> None:
    made = finish_stage(tmp_path, "merge", "lists")
    root = str(tmp_path / "cosyvoice2")
    handed_on = run_selected("merge", "lists", root, [], {"other": 1}, doing, never, ["cosyflow.errors"])
    assert (handed_on.uri, handed_on.reused, is_skipped(handed_on)) == (made.uri, True, False)


def test_before_the_first_stage_missing_outputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(CosyFlowError, match=r"merge/lists/latest.json: no such file; run the stage merge"):
        run_selected("merge", "lists", str(tmp_path), [], {}, Activity.HANDS_ON, never, ["cosyflow.errors"])


def test_a_recipe_is_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(recipe_path("cosyvoice2.tiny").read_text())
    assert load_recipe(str(own)) == load_recipe("cosyvoice2.tiny")
    assert recipe_name(str(own)) == "own"
    monkeypatch.setenv("COSYFLOW_CONF", str(tmp_path))
    assert recipe_path("own") == own
    with pytest.raises(CosyFlowError, match="cosyvoice2: no such recipe; there are own, or give the path"):
        recipe_path("cosyvoice2")


def test_subsets_are_the_recipes_unless_they_are_chosen() -> None:
    recipe = load_recipe("cosyvoice2")
    default = resolve_subsets(recipe)
    assert default.every == [*recipe.corpus.train_subsets, *recipe.corpus.dev_subsets, *recipe.corpus.test_subsets]
    chosen = resolve_subsets(recipe, train=["mine"], test=["none"])
    assert chosen.every == ["mine", *recipe.corpus.dev_subsets]


def options(**changed: object) -> TrainOptions:
    values: dict[str, object] = {
        "model": "llm", "train_engine": "torch_ddp", "launcher": "auto", "job": "", "num_nodes": 1,
        "gpus_per_node": 1, "num_workers": 0,
        "prefetch": 2, "pin_memory": False, "use_amp": False, "checkpoint": "auto", "qwen_pretrain_path": "auto",
        "dpo": False, "ref_model": "",
        "deepspeed_config": "a/ds.json", "deepspeed_save_states": "model_only", "mlflow_uri": "", "experiment": "x",
    }  # fmt: skip
    return TrainOptions(**{**values, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["num_workers", "prefetch", "mlflow_uri", "experiment"])
def test_how_data_is_read_and_where_metrics_go_does_not_make_another_model(name: str) -> None:
    assert _options_settings(options()) == _options_settings(options(**{name: 9}))


@pytest.mark.parametrize("name", ["model", "train_engine", "num_nodes", "use_amp", "dpo"])
def test_what_changes_a_model_is_in_its_key(name: str) -> None:
    assert _options_settings(options()) != _options_settings(options(**{name: 9}))


def test_auto_starts_from_what_the_pretrained_directory_has(tmp_path: Path) -> None:
    (tmp_path / "llm.pt").touch()
    assert _start("auto", str(tmp_path), "llm.pt") == str(tmp_path / "llm.pt")
    assert _start("auto", str(tmp_path), "flow.pt") == ""
    assert _start("", str(tmp_path), "llm.pt") == ""
    assert _start("mine.pt", str(tmp_path), "llm.pt") == "mine.pt"


def test_rejected_speech_is_found_by_subset(tmp_path: Path) -> None:
    tokens = tmp_path / "train-clean-100" / "utt2speech_token.pt"
    tokens.parent.mkdir()
    tokens.touch()
    assert _rejected_tokens(str(tmp_path), "train-clean-100") == str(tokens)
    assert _rejected_tokens(str(tmp_path), "test-clean") == ""
    assert _rejected_tokens("", "train-clean-100") == ""


def test_counts_are_told_in_words(tmp_path: Path) -> None:
    made = [finish_stage(tmp_path, "prepare", name) for name in ("a", "b")]
    assert describe_counts(made) == "4 of 6 utterances, 2 rejected"
