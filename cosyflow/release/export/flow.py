"""The flow's files: its encoder as TorchScript (CosyVoice and CosyVoice 2), its estimator as ONNX."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cosyflow.models.flow.model import CosyVoice1Flow, CosyVoice2Flow, Flow
from cosyflow.release.export.comparison import ExportedFile, Tensors, random_tensor
from cosyflow.release.export.encoders import CalledEncoder, CalledUpsampleEncoder
from cosyflow.release.export.formats import onnx, scripted

ESTIMATOR_FILE = "flow.decoder.estimator.fp32.onnx"
ENCODER_FILE = "flow.encoder.{}.zip"
ESTIMATOR_INPUTS = ("x", "mask", "mu", "t", "spks", "cond")
ESTIMATOR_OUTPUT = "estimator_out"
TIMED = ("x", "mask", "mu", "cond", ESTIMATOR_OUTPUT)
"""Inputs and outputs of the estimator whose third axis is time."""
GUIDED = 2
"""Utterances in a batch of the estimator: with and without the condition."""
TRACED_FRAMES = 256
FRAMES = range(16, 513)
TOKENS = range(8, 200)
TYPES = {"fp32": torch.float32, "fp16": torch.float16}


def flow_files(flow: Flow) -> list[ExportedFile]:
    """The files of a flow, which is in evaluation mode."""
    encoders: list[ExportedFile] = []
    if isinstance(flow, CosyVoice1Flow):
        encoders = _encoder_files(flow)
    elif isinstance(flow, CosyVoice2Flow):
        encoders = _upsample_encoder_files(flow)
    return [*encoders, _estimator_file(flow)]


def _tokens(flow: Flow, length: int) -> Tensors:
    """Token embeddings [1, T, D] and their number [1]."""
    return random_tensor(length, 1, length, flow.input_embedding.embedding_dim), torch.tensor([length])


def _encoder_files(flow: CosyVoice1Flow) -> list[ExportedFile]:
    module = CalledEncoder(flow.encoder)

    def run(loaded: Any, tensors: Tensors) -> Tensors:
        return tuple(loaded(*tensors))

    def whole(tensors: Tensors) -> Tensors:
        valid = torch.ones(tensors[0].shape[:2], dtype=torch.bool)
        return flow.encoder(tensors[0], valid), valid[:, None]

    return [
        ExportedFile(
            ENCODER_FILE.format(name),
            scripted(module, run, dtype),
            whole,
            lambda length: _tokens(flow, length),
            TOKENS,
            dtype,
        )
        for name, dtype in TYPES.items()
    ]


def _upsample_encoder_files(flow: CosyVoice2Flow) -> list[ExportedFile]:
    """Compared are a whole utterance, a whole utterance by chunks, and a first part with its lookahead by chunks."""
    module = CalledUpsampleEncoder(flow.encoder)
    ahead = flow.lookahead

    def run(loaded: Any, tensors: Tensors) -> Tensors:
        x, length = tensors
        part, context = x[:, :-ahead], x[:, -ahead:]
        return (
            *loaded(x, length, streaming=False),
            *loaded(x, length, streaming=True),
            *loaded(part, length - ahead, context=context, streaming=True),
        )

    def whole(tensors: Tensors) -> Tensors:
        x = tensors[0]
        valid = torch.ones(x.shape[:2], dtype=torch.bool)
        outputs: list[Tensor] = []
        for streaming, held_back in ((False, 0), (True, 0), (True, ahead)):
            encoded = flow.encoder(x, valid, streaming, held_back)
            outputs += [encoded, torch.ones(1, 1, encoded.size(1), dtype=torch.bool)]
        return tuple(outputs)

    return [
        ExportedFile(
            ENCODER_FILE.format(name),
            scripted(module, run, dtype),
            whole,
            lambda length: _tokens(flow, length),
            TOKENS,
            dtype,
        )
        for name, dtype in TYPES.items()
    ]


def _estimator_file(flow: Flow) -> ExportedFile:
    estimator = flow.decoder.estimator
    channels = flow.config.output_size

    def inputs(frames: int) -> Tensors:
        x, mu, cond = random_tensor(frames, 3, GUIDED, channels, frames)
        time = torch.rand(1, generator=torch.Generator().manual_seed(frames)).expand(GUIDED).contiguous()
        return x, torch.ones(GUIDED, 1, frames), mu, time, random_tensor(frames, GUIDED, channels), cond

    axes = {name: {2: "seq_len"} for name in TIMED}
    write = onnx(estimator, inputs(TRACED_FRAMES), ESTIMATOR_INPUTS, ESTIMATOR_OUTPUT, axes)
    return ExportedFile(ESTIMATOR_FILE, write, lambda tensors: (estimator(*tensors),), inputs, FRAMES)
