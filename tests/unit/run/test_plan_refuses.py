"""Wrong settings are refused before any work, in a line for each that names the setting, with exit status 2."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.run.world import Refused

LLM, FLOW, HIFIGAN = ({"model": part, "average_num": 4} for part in ("llm", "flow", "hifigan"))


def override(*settings: str, **changed: Any) -> dict[str, Any]:
    return {"overrides": list(settings), **changed}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    # (what is changed in a run that can work, the setting that is named, a part of what is said of it)
    # the recipe
    ({"recipe": "cosyvoice9"}, "recipe", "cosyvoice9: no such recipe; there are .*cosyvoice2.tiny"),
    ({"recipe": "nowhere/mine.yaml"}, "recipe", "nowhere/mine.yaml: cannot read the recipe"),
    (override("version=cosyvoice9"), "version", "'cosyvoice9' is not one of cosyvoice, "),
    (override("train_conf.max_epochs=3"), "train_conf.max_epochs", "unknown key; allowed here: .*max_epoch"),
    (override("trian_conf.max_epoch=3"), "trian_conf", "unknown key; allowed here: .*train_conf"),
    (override("train_conf.optim_conf=3"), "train_conf.optim_conf", ""),
    (override("train_conf.max_epoch=0"), "train_conf.max_epoch", "0 is less than 1"),
    (override("train_conf.max_epoch=many"), "train_conf.max_epoch", 'not "many"'),
    (override("train_conf.max_epoch"), "train_conf.max_epoch", "a setting is written KEY=VALUE"),
    (override("train_conf.optim=sgd"), "train_conf.optim", "'adam' or 'adamw'"),
    (override("train_conf.optim_conf.lr=-1"), "train_conf.optim_conf.lr", "not positive"),
    (override("train_conf.scheduler=NoamHoldAnnealing"), "train_conf.scheduler", "needs scheduler_conf.max_steps"),
    (override("filter.min_length=7000"), "filter.min_length", "not between 0 and max_length"),
    (override("corpus.dev_subsets=[]"), "corpus.dev_subsets", "at least one subset"),
    # settings of a recipe that do not fit each other
    (override("flow.output_size=70"), "flow.estimator.out_channels", "80 is not the 70 mel"),
    (override("mel.fmax=20000"), "mel.fmax", "above half of the sample_rate"),
    (override("sample_rate=16000"), "hifigan.generator.sampling_rate", "is not the sample_rate 16000"),
    (override("llm.speech_token_size=9000"), "flow.vocab_size", "less than the 90.. speech tokens"),
    # settings that the part does not read
    (override("flow.prompt_rate=0.1", **LLM), "flow.prompt_rate", "not read where the llm is trained"),
    (override("train_conf_gan.seed=1", **LLM), "train_conf_gan.seed", "not read where the llm is trained"),
    (override("train_conf.frames_per_step=100", **LLM), "train_conf.frames_per_step", "not read where the llm"),
    (override("dpo.beta=0.1", **LLM), "dpo.beta", "not read where the llm is trained"),
    (override("llm.lsm_weight=0.1", **FLOW), "llm.lsm_weight", "not read where the flow is trained"),
    (override("hifigan.loss.tpr_loss_tau=0.1", **FLOW), "hifigan.loss.tpr_loss_tau", "not read where the flow"),
    (override("train_conf.tokens_per_step=100", **FLOW), "train_conf.tokens_per_step", "not read where the flow"),
    (override("train_conf.max_epoch=3", **HIFIGAN), "train_conf.max_epoch", "not read where the hifigan"),
    (override("train_conf_gan.tokens_per_step=9", **HIFIGAN), "train_conf_gan.tokens_per_step", "not read"),
    ({**FLOW, "qwen_pretrain_path": "/"}, "qwen_pretrain_path", "not read by the flow of cosyvoice2"),
    ({"recipe": "cosyvoice.tiny", "qwen_pretrain_path": "/"}, "qwen_pretrain_path", "not read by the llm of"),
    # single values
    ({"model": "hifigam"}, "model", "'hifigam' is not one of llm, flow, hifigan"),
    ({"launcher": "pytorchjobs"}, "launcher", "'pytorchjobs' is not one of auto, local, pytorchjob"),
    ({"train_engine": "horovod"}, "train_engine", "'horovod' is not one of torch_ddp, deepspeed"),
    ({"deepspeed_save_states": "all"}, "deepspeed_save_states", "'all' is not one of"),
    ({"f0": "slow"}, "f0", "'slow' is not one of auto, none, harvest, fast"),
    ({"max_reject_share": 1.5}, "max_reject_share", "1.5 is not a share"),
    ({"max_reject_share": float("nan")}, "max_reject_share", "nan is not a share"),
    ({"num_processes": -1}, "num_processes", "less than 0"),
    ({"num_workers": -1}, "num_workers", "less than 0"),
    ({"prefetch": -1}, "prefetch", "less than 0"),
    ({"num_utts_per_parquet": 0}, "num_utts_per_parquet", "less than 1"),
    ({"average_num": 0}, "average_num", "less than 1"),
    ({"num_nodes": 0}, "num_nodes", "less than 1"),
    ({"gpus_per_node": -2}, "gpus_per_node", "less than -1"),
    ({"launcher": "local", "gpus_per_node": 5}, "train_conf.accum_grad", "4 batches for 5 processes; give 5 or"),
    ({"start_stage": 8}, "start_stage", r"8 is no stage; give -1 \(download\) to 7"),
    ({"stop_stage": -2}, "stop_stage", "-2 is no stage"),
    ({"start_stage": 3, "stop_stage": 2}, "start_stage", "3 is above stop_stage 2"),
    ({"data_root": ""}, "data_root", "is missing; name a folder or an s3:// prefix"),
    # settings of a run that do not fit each other
    ({"train_engine": "deepspeed", **HIFIGAN}, "train_engine", "one optimizer, and hifigan is two"),
    ({"train_engine": "deepspeed", "deepspeed_config": "x.json"}, "deepspeed_config", "x.json: no such file"),
    ({"launcher": "local", "num_nodes": 2}, "num_nodes", "2 machines need launcher pytorchjob"),
    ({"num_nodes": 2}, "num_nodes", "2 machines need launcher pytorchjob"),
    ({"launcher": "pytorchjob"}, "data_root", "pods of a pytorchjob cannot see a folder of this machine"),
    ({"average_num": 6}, "average_num", "6 is more than the 5 checkpoints of train_conf.keep_best"),
    ({"average_num": 3, "val_best": False}, "average_num", "3 is more than the 2 checkpoints of train_conf.keep_last"),
    (override("train_conf.max_epoch=4"), "average_num", "5 is more than the 4 epochs of train_conf.max_epoch"),
    ({**FLOW, "dpo": True}, "dpo", "trains the llm, not the flow"),
    ({"dpo": True}, "reject_dir", "dpo needs rejected speech in the shards"),
    ({"dpo": True, "checkpoint": "", "start_stage": 5}, "dpo", "needs a reference"),
    ({"ref_model": "/"}, "ref_model", "has a meaning with dpo only"),
    # subsets
    ({"train_subsets": ["dev"]}, "train_subsets", "dev: named twice among the subsets"),
    ({"train_subsets": ["train-a", "train-a"]}, "train_subsets", "train-a: named twice"),
    ({"train_subsets": ["dev", "x"], "dev_subsets": ["x"]}, "dev_subsets", "x: named twice"),
    ({"train_subsets": ["../other"]}, "train_subsets", "'../other' is not the name of a subset"),
    ({"dev_subsets": ["none"]}, "dev_subsets", "'none' is not the name of a subset"),
    ({"test_subsets": ["none", "x"]}, "test_subsets", "'none' is not the name of a subset"),
    ({"train_subsets": ["train-z"]}, "train_subsets", "speech/train-z: no such folder"),
    ({"dev_subsets": ["dev-z"]}, "dev_subsets", "speech/dev-z: no such folder"),
    ({"test_subsets": ["test"]}, "test_subsets", "speech/test: no such folder"),
    # places
    ({"checkpoint": "gone.pt"}, "checkpoint", "gone.pt: no such file or folder"),
    ({"qwen_pretrain_path": "gone"}, "qwen_pretrain_path", "gone: no such file or folder"),
    ({"dpo": True, "ref_model": "gone.pt"}, "ref_model", "gone.pt: no such file or folder"),
    ({"job": "gone.yaml"}, "job", "gone.yaml"),
    ({"reject_dir": "/nowhere"}, "reject_dir", "has no SUBSET/utt2speech_token.pt for any of train-a"),
    ({"pretrained_dir": ""}, "pretrained_dir", "is empty"),
    ({"pretrained_dir": "/nowhere"}, "pretrained_dir", "no such file"),
    ({"mlflow_uri": "registry:5000"}, "mlflow_uri", "not the address of a model registry"),
    ({"mlflow_uri": "http://127.0.0.1:9"}, "mlflow_uri", "does not answer"),
    ({"data_url": "http://127.0.0.1:9/60"}, "data_url", "cannot be reached"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "setting", "text"), WRONG, ids=[f"{number}-{case[1]}" for number, case in enumerate(WRONG)]
)
def test_refuses(refused: Callable[..., Refused], changed: dict[str, Any], setting: str, text: str) -> None:
    found = refused(**changed)
    assert found.status == 2
    assert any(re.search(text, said) for said in found.problems[setting]), found.lines
    assert len(set(found.lines)) == len(found.lines)
    assert all(f"{setting}: {setting}" not in line for line in found.lines)


def test_the_cases_are_many() -> None:
    assert len(WRONG) >= 50


@pytest.mark.parametrize("recipe", ["cosyvoice9", "nowhere/mine.yaml"])
def test_a_recipe_that_is_not_there_hides_no_other_problem(refused: Callable[..., Refused], recipe: str) -> None:
    """What depends on the recipe is not guessed at: only problems that every recipe has are shown."""
    found = refused(recipe=recipe, num_nodes=2, launcher="local", job="gone.yaml", pretrained_dir="/nowhere")
    assert set(found.problems) == {"recipe", "num_nodes", "job"}, found.lines
