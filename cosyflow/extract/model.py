"""ONNX models for extraction: loaded with a check of their signature, run with the time they take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.extract.device import AUTO, CPU, CUDA, PROVIDER, VARIABLE, asked_for, why_no_cuda, why_not_loaded
from cosyflow.pretrained import STAND_IN_KEY, how_to_get
from cosyflow.unexpected import reading

Array = NDArray[Any]


class ModelError(CosyFlowError):
    """A model could not make anything of an input."""


@dataclass(frozen=True)
class Input:
    """What a model says of one of its inputs."""

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class Signature:
    """What the inputs of a model must look like: their shapes (None stands for any length) and element types."""

    purpose: str
    shapes: Sequence[Sequence[int | None]]
    types: Sequence[str]

    def fits(self, inputs: Sequence[Input]) -> bool:
        return len(inputs) == len(self.shapes) and all(
            each.type == f"tensor({kind})" and len(each.shape) == len(shape) and all(map(_allows, each.shape, shape))
            for each, shape, kind in zip(inputs, self.shapes, self.types, strict=True)
        )


def _allows(declared: int | str | None, wanted: int | None) -> bool:
    """A model that declares a dimension by name, or not at all, takes any length."""
    return wanted is None or not isinstance(declared, int) or declared == wanted


SPEAKER = Signature("a speaker-embedding model (fbank [B, T, 80])", [[None, None, 80]], ["float"])
TOKENIZER = Signature(
    "a speech tokenizer (log-mel [1, 128, T] and length [1])", [[1, 128, None], [1]], ["float", "int32"]
)


@dataclass
class RunTime:
    """Seconds spent, and those of them within the model."""

    total: float = 0.0
    model: float = 0.0

    def __add__(self, other: RunTime) -> RunTime:
        return RunTime(self.total + other.total, self.model + other.model)

    @property
    def outside_model(self) -> float:
        """Share of the time that is not the model's, 0 to 1."""
        return 1.0 - self.model / self.total if self.total > 0 else 0.0


@dataclass(frozen=True)
class ModelFile:
    """A model on this machine's disk.

    Attributes:
        path: to load.
        name: the path or URI that the user gave, for messages.
        device: where it is to compute, one of `device.DEVICES`.
    """

    path: str
    name: str
    device: str = AUTO


@dataclass
class OnnxModel:
    """A loaded model. `run` may be called from several threads."""

    file: ModelFile
    signature: Signature
    session: Any = field(repr=False)
    inputs: list[Input]
    is_stand_in: bool = False
    why_no_cuda: str = ""

    @classmethod
    def load(cls, file: ModelFile, signature: Signature, device: int = 0) -> OnnxModel:
        """Loads on the CUDA device of that number where there is one, else on the CPU with one thread a call.

        Raises:
            CosyFlowError: the file is not an ONNX model, its inputs are not those of the signature, or CUDA was asked
                for and cannot be used; the message says why.
        """
        asked = asked_for(file.device)
        why = why_no_cuda() if asked != CPU else ""
        _require_cuda(file, asked, why)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(file.path, options, providers=_providers(asked, why, device))
        except Exception as error:  # onnxruntime's own exceptions have no common base but this
            raise CosyFlowError(f"{file.name}: cannot be loaded as an ONNX model ({error})") from error
        with reading(file.name, "an ONNX model"):  # its texts need not be any
            inputs = [Input(each.name, each.type, list(each.shape)) for each in session.get_inputs()]
            is_stand_in = STAND_IN_KEY in session.get_modelmeta().custom_metadata_map
        if not signature.fits(inputs):
            found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise CosyFlowError(f"{file.name}: not {signature.purpose}; its inputs are {found}")
        if asked != CPU and not why and session.get_providers()[0] != PROVIDER:
            why = why_not_loaded()
            _require_cuda(file, asked, why)
        return cls(file, signature, session, inputs, is_stand_in, why)

    @property
    def takes_batches(self) -> bool:
        """Whether the first dimension of the first input is free."""
        return self.inputs[0].shape[0] != 1

    @property
    def provider(self) -> str:
        """Where it computes: "CPU" or "CUDA"."""
        name: str = self.session.get_providers()[0]
        return name.removesuffix("ExecutionProvider")

    def run(self, *inputs: Array, run_time: RunTime) -> Array:
        """The first output; the time is added to `run_time`. Raises ModelError when the model refuses the inputs."""
        names = [each.name for each in self.inputs]
        start = time.perf_counter()
        try:
            output: Array = self.session.run(None, dict(zip(names, inputs, strict=True)))[0]
        except Exception as error:  # as above
            shapes = ", ".join(str(list(np.shape(each))) for each in inputs)
            raise ModelError(f"{self.file.name} failed on inputs of shape {shapes} ({error})") from error
        finally:
            run_time.model += time.perf_counter() - start
        return output


def require_model(onnx_path: str) -> None:
    """Raises CosyFlowError when there is no such file, saying where to get it."""
    if not storage.exists(onnx_path):
        raise CosyFlowError(f"{onnx_path}: no such file; {how_to_get(storage.name(onnx_path))}")


def _require_cuda(file: ModelFile, asked: str, why_not: str) -> None:
    if asked == CUDA and why_not:
        raise CosyFlowError(
            f"{file.name}: cuda was asked for (--device, {VARIABLE}, or the run's device), and {why_not}; correct it or"
            " ask for auto or cpu"
        )


def _providers(asked: str, why_no_cuda: str, device: int) -> list[Any]:
    cpu = "CPUExecutionProvider"
    if asked == CPU or why_no_cuda:
        return [cpu]
    return [(PROVIDER, {"device_id": device % torch.cuda.device_count()}), cpu]
