"""DeepSpeed's settings: what of a file is taken, what the recipe overrules, and what cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosyflow.config.deepspeed import config_place, line_numbers, overruled, parse
from cosyflow.config.options import TrainingOptions
from cosyflow.config.training import GanTrainConf, OptimConf, TrainConf
from cosyflow.errors import Problem, RefusalError
from cosyflow.training.engine.problems import Recipe, engine_problems, recipe_problems

OFFICIAL = """{
  "train_micro_batch_size_per_gpu": 1,
  "gradient_accumulation_steps": 1,
  "gradient_clipping": 5,
  "fp16": {
    "enabled": false,
    "loss_scale": 0
  },
  "bf16": {"enabled": false},
  "zero_optimization": {"stage": 2, "overlap_comm": true},
  "optimizer": {
    "type": "AdamW",
    "params": {
      "lr": 0.001,
      "weight_decay": 0.0001,
      "torch_adam": true,
      "adam_w_mode": true
    }
  }
}
"""
"""As the official examples have it."""
RECIPE = """version: cosyvoice2
train_conf:
  optim: adam
  optim_conf:
    lr: 1.0e-5
  accum_grad: 2
"""
DECAY = "train_conf.optim_conf.weight_decay"
DEFAULT = "(r.yaml, its default)"
CONF = TrainConf(optim="adam", optim_conf=OptimConf(lr=1e-5), accum_grad=2)


def told(text: str, conf: TrainConf = CONF) -> list[str]:
    settings = parse(text, "ds.json")
    return list(overruled(settings, conf, "train_conf", "tokens_per_step", "r.yaml", line_numbers(RECIPE)))


def test_each_value_that_the_recipe_overrules_is_told_with_both_lines() -> None:
    assert told(OFFICIAL) == [
        'ds.json:12: optimizer.type is "AdamW", and the recipe wins: train_conf.optim is "adam" (r.yaml:3)',
        "ds.json:14: optimizer.params.lr is 0.001, and the recipe wins: train_conf.optim_conf.lr is 1e-05 (r.yaml:5)",
        f"ds.json:15: optimizer.params.weight_decay is 0.0001, and the recipe wins: {DECAY} is 0.0 {DEFAULT}",
        "ds.json:3: gradient_accumulation_steps is 1, and the recipe wins: train_conf.accum_grad is 2 (r.yaml:6)",
    ]


def test_equal_values_are_not_told() -> None:
    conf = TrainConf(optim="adamw", optim_conf=OptimConf(lr=0.001, weight_decay=0.0001), accum_grad=1)
    assert told(OFFICIAL, conf) == []


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_half_precision_of_a_file_is_overruled(dtype: Any) -> None:
    (line,) = told('{"fp16": {"enabled": true}}', TrainConf(dtype=dtype))
    assert line.startswith("ds.json:1: fp16.enabled is true, and the recipe wins: train_conf.dtype is")


def test_our_own_file_overrules_nothing_and_fits_every_recipe() -> None:
    place = config_place("conf/ds_stage2.json")
    settings = parse(Path(place).read_text(), place)
    assert settings.stage == 2
    assert settings.for_deepspeed.keys() == {"zero_optimization"}
    for conf in (CONF, TrainConf(dtype="float32"), TrainConf(grad_clip=1.0, accum_grad=8)):
        assert list(overruled(settings, conf, "train_conf", "tokens_per_step", "r.yaml", {})) == []


def test_our_own_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(config_place("conf/ds_stage2.json")).is_file()
    assert config_place("conf/own.json") == "conf/own.json"


def test_auto_is_left_to_deepspeed() -> None:
    settings = parse('{"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}, "optimizer": {}}', "ds.json")
    assert settings.for_deepspeed == {"zero_optimization": {"stage": 3}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "ds.json:1: not JSON: "),
        ("[]", "ds.json:1: not a JSON object"),
        ('{\n "sparse_attention": {}}', "ds.json:2: sparse_attention is not read here; leave it out"),
        ('{"zero_optimization": 2}', "ds.json:1: zero_optimization is no object"),
        ('{"zero_optimization": {"stage": 4}}', "ds.json:1: zero_optimization.stage is 4; give 0, 1, 2 or 3"),
        (
            '{"zero_optimization": {"stage": 3,\n\t"offload_optimizer": {"device": "nvme"}}}',
            "ds.json:2: offload_optimizer to nvme does not work here; give the device cpu",
        ),
        (
            '{"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}',
            "ds.json:1: offload_param needs zero_optimization.stage 3 or more, here it is 2",
        ),
        ('{"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}', "needs zero_optimization.stage 1"),
    ],
)
def test_what_cannot_work_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(RefusalError) as refused:
        parse(text, "ds.json")
    (found,) = refused.value.problems
    assert found.setting == "deepspeed_config"
    assert problem in found.text


def problems(tmp_path: Path, content: dict[str, Any], conf: TrainConf = CONF, **options: Any) -> list[Problem]:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(content))
    chosen = TrainingOptions(train_engine="deepspeed", deepspeed_config=str(file), **options)
    return [*engine_problems(chosen), *recipe_problems(chosen, Recipe(conf, "train_conf", ""))]


def test_strict_refuses_what_is_else_a_warning(tmp_path: Path) -> None:
    content = {"gradient_clipping": 1.0}
    (warning,) = problems(tmp_path, content)
    (refusal,) = problems(tmp_path, content, strict=True)
    assert (warning.is_warning, refusal.is_warning) == (True, False)
    assert refusal.text == f'{warning.text}; say "auto" there, or change the recipe'


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    (compiled,) = problems(tmp_path, {}, TrainConf(compile=True))
    assert str(compiled).startswith("train_conf.compile: does not go with train_engine deepspeed")
    (vocoder,) = problems(tmp_path, {}, GanTrainConf(), model="hifigan")
    assert str(vocoder).startswith("train_engine: deepspeed trains one model by one optimizer, and hifigan is two")


def test_the_other_engine_reads_none_of_it() -> None:
    assert not list(engine_problems(TrainingOptions(deepspeed_config="absent.json")))
