"""Weights in the forms that people have them in: taken, or refused with the form's name and the way."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cosyflow.checkpoint.describe import describe
from cosyflow.checkpoint.official import TIED_HEAD, load_official, read_form, read_tensors
from cosyflow.errors import CosyFlowError
from tests.unit.checkpoint.test_official import small_model

State = dict[str, Tensor]
FORMS: dict[str, tuple[Callable[[State], Any], str]] = {
    # what a file holds, and what is said of its form
    "bare": (lambda state: state, ""),
    "official": (lambda state: {**state, "epoch": 3, "step": 700}, ""),
    "ddp": (lambda state: {f"module.{key}": value for key, value in state.items()}, "the prefix 'module.' on every"),
    "compiled": (lambda state: {f"_orig_mod.{key}": value for key, value in state.items()}, "the prefix '_orig_mod.'"),
    "deepspeed": (lambda state: {"module": state, "global_steps": 9, "optimizer": None}, "'module', 2 other entries"),
    "lightning": (lambda state: {"state_dict": state, "epoch": 3}, "under the key 'state_dict', 1 other entries"),
    "script": (lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}}, "under the key 'model'"),
    "both": (lambda state: {"model": {f"module.{key}": value for key, value in state.items()}}, "'model', the prefix"),
    "untied": (lambda state: {key: value for key, value in state.items() if key != TIED_HEAD}, ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_taken_and_named(tmp_path: Path, form: str) -> None:
    make, told = FORMS[form]
    first, second = small_model(seed=1), small_model(seed=2)
    torch.save(make(first.state_dict()), tmp_path / "llm.pt")
    load_official(second, tmp_path / "llm.pt")
    torch.testing.assert_close(second.state_dict(), first.state_dict())
    assert told in read_form(tmp_path / "llm.pt")[1]
    assert told in describe(tmp_path / "llm.pt").lines()[0]
    assert describe(tmp_path / "llm.pt", second).problems == []


def test_safetensors_without_the_tied_head_are_taken(tmp_path: Path) -> None:
    first, second = small_model(seed=1), small_model(seed=2)
    save_file({key: value for key, value in first.state_dict().items() if key != TIED_HEAD}, tmp_path / "a.safetensors")
    load_official(second, tmp_path / "a.safetensors")
    torch.testing.assert_close(second.state_dict(), first.state_dict())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list, a checkpoint is a dictionary of tensors"),
        (
            {"model": {"a": 1}},
            "model is a dict, a checkpoint holds tensors only, by themselves or under one",
        ),
        ({"a": torch.ones(1), "b": "text"}, "b is a str, a checkpoint holds tensors only"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CosyFlowError, match=said):
        read_tensors(tmp_path / "a.pt")


HUGGING_FACE = ("model.safetensors", "pytorch_model.bin", "model-{}.safetensors", "pytorch_model-{}.bin")


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_a_folder_of_hugging_face_is_taken(tmp_path: Path, name: str) -> None:
    first, second = small_model(seed=1), small_model(seed=2)
    write_hugging_face(first.state_dict(), tmp_path, name)
    load_official(second, tmp_path)
    torch.testing.assert_close(second.state_dict(), first.state_dict())
    told = "2 shards" if "{}" in name else name
    assert read_form(tmp_path)[1] == f"a folder of Hugging Face with {told}"


def write_hugging_face(state: State, folder: Path, name: str) -> None:
    """Two shards where the name has a place for a number."""
    state = {key: value for key, value in state.items() if key != TIED_HEAD}
    save = save_file if name.endswith(".safetensors") else torch.save
    keys = list(state)
    places: dict[str, str] = {}
    for number, chosen in enumerate([keys[::2], keys[1::2]] if "{}" in name else [keys], start=1):
        file = name.format(f"0000{number}-of-00002")
        save({key: state[key] for key in chosen}, folder / file)
        places |= dict.fromkeys(chosen, file)
    if "{}" in name:
        (folder / (name.replace("-{}", "") + ".index.json")).write_text(json.dumps({"weight_map": places}))
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "not the index of shards"),
        ('{"weight_map": {"a": "../other/llm.pt"}}', "weight_map does not name files next to it"),
        ('{"weight_map": {"a": "b.safetensors"}}', "b.safetensors: no such checkpoint file"),
        ('{"weight_map": {"a": "shard.bin"}}', "shard.bin: a is missing, which .* says is there"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, index: str, said: str) -> None:
    torch.save({"b": torch.ones(1)}, tmp_path / "shard.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(CosyFlowError, match=said):
        read_tensors(tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["adapter_config.json"], "an adapter of PEFT, which changes another model; merge it"),
        ([".metadata"], "a distributed checkpoint of PyTorch; make one file of it with python -m"),
        (
            ["epoch_0_whole.pt", "epoch_0_whole.yaml"],
            "a training with 1 checkpoints; name one of them, such as epoch_0",
        ),
        (["llm.pt", "flow.pt"], "a model directory with flow.pt, llm.pt; name one of these files"),
        (["config.json"], "a folder of Hugging Face without model.safetensors or pytorch_model.bin"),
        (["a.safetensors"], "name a file of weights in it, such as a.safetensors"),
        ([], "is a folder without weights"),
    ],
)
def test_another_folder_is_refused_with_the_way(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(CosyFlowError, match=said):
        read_tensors(tmp_path)


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("echo ran > harmed",)


def save_as_tar(content: Any, path: Path) -> None:
    """As PyTorch before 0.1.10."""
    with tarfile.open(path, "w") as tar:
        for name, data in {"sys_info": {}, "pickle": content, "tensors": 0, "storages": 0}.items():
            pickled = pickle.dumps(data, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(pickled)
            tar.addfile(member, io.BytesIO(pickled))


WAYS: dict[str, Callable[[Any, Path], object]] = {
    "zip": torch.save,
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "tar": save_as_tar,
    **{
        f"pickle {protocol}": lambda content, path, protocol=protocol: path.write_bytes(
            pickle.dumps(content, protocol=protocol)
        )
        for protocol in range(6)
    },
}
"""In which files objects come."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("thing", "name"), [(Harmful(), "posix.system"), (argparse.Namespace(), "argparse.Namespace")])
@pytest.mark.filterwarnings("error::UserWarning")
def test_objects_are_refused_without_running_them_and_without_advice_to_do_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thing: Any, name: str, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    WAYS[way]({"a": thing}, tmp_path / "a.pt")
    with pytest.raises(CosyFlowError) as refused:
        read_tensors(tmp_path / "a.pt")
    assert "weights_only" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "harmed").exists()
    if "0" in way or "1" in way:  # without a class's own way these begin with what makes any object
        name = "" if name == "argparse.Namespace" else name
    assert f"it holds {name}" in str(refused.value)
    assert "only tensors, numbers and text are read" in str(refused.value)


def test_an_export_is_named_as_such(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "llm.forward.fp32.zip")
    with pytest.raises(CosyFlowError, match=r"an export in TorchScript; name the .pt file"):
        read_tensors(tmp_path / "llm.forward.fp32.zip")
