"""What MLflow is told of a training, and what the training tells of that; tracking changes nothing that is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosyflow import __version__
from cosyflow.config.options import LaunchOptions
from cosyflow.launch.train_stage import launch
from cosyflow.training.arguments import Arguments
from tests.local.token_corpus import RECIPE, make_token_corpus

SMALL_MODEL = ("llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48")


@pytest.mark.slow
def test_a_run_bears_its_recipe_and_its_code_and_the_result_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("COSYFLOW_GIT_COMMIT", "c0ffee")
    monkeypatch.setenv("COSYFLOW_GIT_CLEAN", "true")
    monkeypatch.setenv(
        "COSYFLOW_RUN_TAGS", json.dumps({"kfp.pipeline_run_id": "7", "kfp.pipeline_run_url": "http://u/7"})
    )
    corpus = make_token_corpus(tmp_path / "corpus", num_train=8, num_dev=2)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def train(name: str, mlflow_uri: str) -> dict[str, object]:
        arguments = Arguments(
            config=str(RECIPE),
            train_data=corpus.train_list,
            cv_data=corpus.dev_list,
            tokenizer_path=corpus.qwen2,
            model_dir=str(tmp_path / name),
            num_workers=0,
            max_steps=2,
            mlflow_uri=mlflow_uri,
            overrides=SMALL_MODEL,
        )
        result = launch(arguments, LaunchOptions(launcher="local", gpus_per_node=0))
        return {**result.details, "digest": result.digest}

    tracked, untracked = train("tracked", store), train("untracked", "")
    assert tracked["digest"] == untracked["digest"]
    assert "mlflow_run_id" not in untracked
    run = MlflowClient(store).get_run(str(tracked["mlflow_run_id"]))
    assert run.info.run_name == "cosyvoice2.tiny-llm"
    ours = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert ours == {
        "recipe": "cosyvoice2.tiny",
        "recipe_file": str(RECIPE),
        "version": "cosyvoice2",
        "model": "llm",
        "cosyflow.version": __version__,
        "git_commit": "c0ffee",
        "git_clean": "true",
        "kfp.pipeline_run_id": "7",
        "kfp.pipeline_run_url": "http://u/7",
    }
    assert run.data.params["num_workers"] == "0"
