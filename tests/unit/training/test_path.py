"""From the command to the backward pass a reader opens six files of ours, as the calls themselves show."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

import cosyflow
from cosyflow.cli import main
from cosyflow.training.arguments import Arguments
from cosyflow.training.process import run
from tests.local.token_corpus import RECIPE, make_token_corpus

LIBRARY = Path(cosyflow.__file__).parent
COMMAND = "cli/train.py"
SMALL_MODEL = ("llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48")


def files_on_the_stack() -> list[str]:
    """The files of ours whose functions are being run, the outermost first."""
    files = [Path(frame.filename) for frame in traceback.extract_stack()]
    ours = [file.relative_to(LIBRARY).as_posix() for file in files if file.is_relative_to(LIBRARY)]
    return list(dict.fromkeys(ours))


class Reached(BaseException):
    """The place that was looked for; nothing of ours catches it."""

    def __init__(self) -> None:
        self.files = files_on_the_stack()


awaited: list[str] = []
"""Modules whose start as a process of their own is the place that is looked for."""


def end_at_start(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook, which stays for as long as Python runs."""
    if awaited and event == "subprocess.Popen" and awaited[0] in arguments[1]:
        awaited.clear()
        raise Reached


@pytest.mark.medium
def test_from_the_command_to_the_backward_pass_are_six_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_token_corpus(tmp_path / "corpus")
    arguments = Arguments(
        config=str(RECIPE),
        train_data=corpus.train_list,
        cv_data=corpus.dev_list,
        tokenizer_path=corpus.qwen2,
        model_dir=str(tmp_path / "model"),
        num_workers=0,
        overrides=SMALL_MODEL,
    )
    sys.addaudithook(end_at_start)
    awaited.append("torch.distributed.run")
    with pytest.raises(Reached) as start:
        main(["train", *arguments.command_line(), "--launcher", "local", "--gpus_per_node", "0"])
    command = start.value.files[start.value.files.index(COMMAND) :]

    def end(*_: object) -> None:
        raise Reached

    monkeypatch.setattr(torch.Tensor, "backward", end)
    with pytest.raises(Reached) as backward:
        run(arguments)  # what torchrun's processes do
    process = backward.value.files
    assert process[0] == "training/process.py"
    assert len(command + process) <= 6, " -> ".join(command + process)
