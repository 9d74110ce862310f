"""The checkpoints of a folder: `NAME.pt` with the bare official state dict, and `NAME.yaml` with settings and losses.

A training names them `epoch_{E}_whole` after an epoch and `epoch_{E}_step_{S}` within one, S updates into the run, and
adds `NAME.state.pt` with all else that an exact resume needs. Each file appears whole or not at all, and the yaml comes
last: a checkpoint without it is unfinished and is ignored.

Folders may also hold checkpoints of another trainer, which writes the same names: they are neither overwritten nor
removed. Known as ours is what has a state, or a yaml with the key `cosyflow`, the version that wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cosyflow import storage
from cosyflow.config import yaml_text
from cosyflow.errors import Problem

TRAINED = re.compile(r"epoch_(\d+)_(?:whole|step_(\d+))")
"""The names that a training gives."""
MARKS_OF_WEIGHTS = (
    "latest",
    "mp_rank_00_model_states.pt",
    "zero_pp_rank_0_mp_rank_00_model_states.pt",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files by which folders of DeepSpeed and of Hugging Face are known that hold the weights of one model."""
WEIGHTS, STATE, RECORD = ".pt", ".state.pt", ".yaml"
OURS = "cosyflow"
"""Key of our yaml files; no official one has it."""
OURS_0_1 = frozenset({"compute_dtype", "keep_best", "world_size"})
"""What CosyFlow 0.1, which did not write OURS, wrote into every yaml file and nobody else does."""
_SUFFIXES = (WEIGHTS, ".safetensors", "")
_DEEPSPEED = "_model_states.pt"
"""How a file's name ends that each checkpoint folder of DeepSpeed has."""
_NOT_CHECKPOINTS = ("train", "init")
"""How names begin that the official trainer gives to its settings and to the weights that it starts from."""


class _PlainLoader(yaml.SafeLoader):
    """Builds no Python objects: official yaml files can hold a pickled tensor, which is read as None."""


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint in `directory`.

    Attributes:
        record: its yaml; empty when that is not one.
        has_state: a run may be able to go on from it.
        suffix: of its weights' name; "" for a folder of DeepSpeed.
    """

    directory: str
    name: str
    record: dict[str, Any]
    has_state: bool
    suffix: str = WEIGHTS

    @property
    def weights(self) -> str:
        """URI of the weights."""
        return storage.join(self.directory, self.name + self.suffix)

    @property
    def state(self) -> str:
        """URI of the state."""
        return storage.join(self.directory, self.name + STATE)

    @property
    def is_ours(self) -> bool:
        """Whether CosyFlow wrote it, and may write it again or remove it."""
        return self.has_state or is_our_record(self.record)

    @property
    def is_whole_epoch(self) -> bool:
        return self.name.endswith("_whole")

    @property
    def epoch(self) -> int:
        """Number of the epoch that it is within or at the end of, by its name if a training gave it, else its yaml."""
        trained = TRAINED.fullmatch(self.name)
        return int(trained[1]) if trained else int(self.record.get("epoch") or 0)

    @property
    def update(self) -> int:
        """Updates of the run up to it; 0 where the yaml does not say."""
        return int(self.record.get("step") or 0)

    @property
    def validation_loss(self) -> float | None:
        """Mean loss over the targets of the validation set; None within an epoch, and where it is not written."""
        losses = self.record.get("loss_dict")
        loss = losses.get("loss") if isinstance(losses, dict) else None
        try:
            return float(loss) if isinstance(loss, int | float) else None
        except OverflowError:  # an integer of hundreds of digits
            return None


def list_checkpoints(directory: str, *, any_name: bool = False) -> list[Checkpoint]:
    """The finished checkpoints of a folder, whoever wrote them, oldest first.

    Args:
        any_name: takes also those that no training named, by the epoch and step of their yaml.
    """
    names = {file.path for file in storage.list_files(directory)}
    # a folder of DeepSpeed stands for its own name
    names |= {file.rpartition("/")[0] for file in names if file.count("/") == 1 and file.endswith(_DEEPSPEED)}
    found = []
    for file in names:
        name = file.removesuffix(RECORD)
        is_one = not name.startswith(_NOT_CHECKPOINTS) if any_name else TRAINED.fullmatch(name)
        suffix = next((suffix for suffix in _SUFFIXES if name + suffix in names), None)
        if is_one and file.endswith(RECORD) and "/" not in file and suffix is not None:
            record = read_record(storage.join(directory, file))
            found.append(Checkpoint(directory, name, record, name + STATE in names, suffix))
    return sorted(found, key=_age)


def has_weights(uri: str) -> bool:
    """Whether a folder seems to hold the weights of one model (see cosyflow.checkpoint.folders)."""
    return any(storage.exists(storage.join(uri, name)) for name in MARKS_OF_WEIGHTS)


def checkpoint_at(uri: str) -> Checkpoint | None:
    """The checkpoint whose weights are at a URI; None where there is no finished one that a training named."""
    found = [each for each in list_checkpoints(storage.parent(uri)) if each.weights == storage.join(uri)]
    return found[0] if found else None


def _age(checkpoint: Checkpoint) -> tuple[int, bool, int, str]:
    """By the name if a training gave it, so that a broken yaml does not make a checkpoint older."""
    trained = TRAINED.fullmatch(checkpoint.name)
    step = int(trained[2] or 0) if trained else checkpoint.update
    return checkpoint.epoch, checkpoint.is_whole_epoch, step, checkpoint.name


def read_record(uri: str) -> dict[str, Any]:
    """The yaml of a checkpoint; empty when it is not one."""
    try:
        record = yaml_text.load(storage.read_bytes(uri), _PlainLoader)
    except yaml.YAMLError:
        return {}
    is_one = isinstance(record, dict) and isinstance(record.get("epoch"), int) and isinstance(record.get("step"), int)
    return record if is_one else {}


def is_our_record(record: Mapping[str, Any]) -> bool:
    return OURS in record or record.keys() >= OURS_0_1


def nothing_to_continue(checkpoint: Checkpoint, reason: str) -> Problem:
    """The problem of a folder with checkpoints that no run can go on from."""
    ways = f"start from its weights (--checkpoint {checkpoint.weights} with another --model_dir), or bring back"
    return Problem("model_dir", f"{checkpoint.directory}: {reason}; {ways} {storage.name(checkpoint.state)}")
