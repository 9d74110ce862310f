"""`cosyflow train` with bad input: one line on standard error, exit status 1 and no folder made."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.cli import main

RECIPE = Path(__file__).resolve().parents[3] / "conf" / "cosyvoice2.tiny.yaml"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "absent.yaml"], "--config absent.yaml: no such file or folder"),
        (["--train_data", "absent.list"], "--train_data absent.list: no such file or folder"),
        (["--checkpoint", "absent.pt"], "--checkpoint absent.pt: no such file or folder"),
        (["--qwen-pretrain-path", "absent"], "--qwen_pretrain_path absent: no such file or folder"),
        (["--train-engine", "deepspeed"], "--train_engine deepspeed: it is not there yet, only torch_ddp is"),
        (["--dpo"], "--dpo: needs a reference, name it as --ref_model or start from a --checkpoint"),
        (["--launcher", "pytorchjob", "--job", "absent.yaml"], "absent.yaml does not exist"),
        (["--num_nodes", "2"], "--num_nodes 2: several machines need --launcher pytorchjob; here it is 1"),
        (["--gpus_per_node", "-1"], "--gpus_per_node -1: at least one process is needed"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_options(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_list = tmp_path / "data.list"
    data_list.write_text("shard.tar\n")
    given = ["--config", str(RECIPE), "--train_data", str(data_list), "--cv_data", str(data_list)]
    status = main(["train", *given, "--model_dir", str(tmp_path / "model"), *options])
    assert status == 1
    assert capsys.readouterr().err == f"cosyflow train: error: {message}\n"
    assert not (tmp_path / "model").exists()
