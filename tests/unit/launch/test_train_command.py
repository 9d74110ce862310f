"""`cosyflow train` with bad input: a line for each problem, exit status 2 and no folder made."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.cli import main

RECIPE = Path(__file__).resolve().parents[3] / "conf" / "cosyvoice2.tiny.yaml"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "absent.yaml"], "config: absent.yaml: no such file or folder; name one that is there"),
        (["--train_data", "absent.list"], "train_data: absent.list: no such file or folder; name one that is there"),
        (["--checkpoint", "absent.pt"], "checkpoint: absent.pt: no such file or folder; name one that is there"),
        (
            ["--qwen-pretrain-path", "absent"],
            "qwen_pretrain_path: absent: no such file or folder; name one that is there",
        ),
        (
            ["--train-engine", "deepspeed", "--model", "hifigan"],
            "train_engine: deepspeed trains one model by one optimizer, and hifigan is two, in turns",
        ),
        (
            ["--train-engine", "deepspeed", "--deepspeed-config", "absent.json"],
            "deepspeed_config: absent.json: no such file; name one that is there",
        ),
        (["--dpo"], "dpo: needs a reference; name it as ref_model, or start from a checkpoint"),
        (["--job", "absent.yaml"], "job: absent.yaml: no such file; give the YAML file of the job's settings"),
        (
            ["--num_nodes", "2"],
            "num_nodes: 2 machines need launcher pytorchjob; here give 1, or take that",
        ),
        (["--gpus_per_node", "-2"], "gpus_per_node: -2 is less than -1; give -1 or more"),
        (["--num_workers=-1"], "num_workers: -1 is less than 0; give 0 or more"),
        (["--launcher", "local", "--set", "train_conf.max_epoch"], "train_conf.max_epoch: "),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_options(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_list = tmp_path / "data.list"
    data_list.write_text("shard.tar\n")
    given = ["--config", str(RECIPE), "--train_data", str(data_list), "--cv_data", str(data_list)]
    status = main(["train", *given, "--model_dir", str(tmp_path / "model"), *options])
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (tmp_path / "model").exists()


def test_every_problem_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = ["--train_data", "absent.list", "--cv_data", "absent.list", "--model_dir", str(tmp_path / "model")]
    assert main(["train", "--config", str(RECIPE), *lists, "--dpo", "--set", "train_conf.optim=adamax"]) == 2
    told = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    assert told == ["dpo", "train_data", "cv_data", "train_conf.optim"]


def test_settings_of_a_job_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, data_list = tmp_path / "job.yaml", tmp_path / "data.list"
    job.write_text("imgae: x\nmax_restarts: many\n")
    data_list.write_text("shard.tar\n")
    lists = ["--train_data", str(data_list), "--cv_data", str(data_list), "--model_dir", str(tmp_path / "model")]
    where = ["--launcher", "pytorchjob", "--job", str(job)]
    assert main(["train", "--config", str(RECIPE), *lists, *where]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"error: job: {job}: ") for line in told] == [True, True]
    assert not (tmp_path / "model").exists()
