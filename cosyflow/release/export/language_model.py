"""The language model's files: one step of any version; text encoder and decoder of CosyVoice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.models.llm.transformer_lm import TransformerLM
from cosyflow.release.export.comparison import ExportedFile, Tensors, random_tensor
from cosyflow.release.export.encoders import CalledDecoder, CalledEncoder
from cosyflow.release.export.formats import onnx, scripted, traced

STEP_FILE = "llm.forward.fp32"
LENGTHS = range(1, 300)
CHUNKED_LENGTHS = range(8, 300)
LAST_STEPS = 5
"""Positions that a sequence is continued by, one by one, when the decoder is compared."""
TRACED_LENGTH = 17
TYPES = {"fp32": torch.float32, "fp16": torch.float16}


def transformer_files(model: TransformerLM) -> list[ExportedFile]:
    """The files of the language model of CosyVoice, which is in evaluation mode."""
    return [*_text_encoder_files(model), *_decoder_files(model), *_step_files(TransformerStep(model))]


def qwen2_files(model: SpeechLM) -> list[ExportedFile]:
    """The files of a language model of CosyVoice 2 or 3, which is in evaluation mode."""
    return _step_files(Qwen2Step(model))


class Qwen2Step(nn.Module):
    """A language model of CosyVoice 2 or 3 seen from outside."""

    def __init__(self, model: SpeechLM) -> None:
        super().__init__()
        self.decoder = model.decoder
        self.head = model.llm_decoder

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings of one sequence, float32 [1, T, H] -> logits of the next speech token [1, T, V].

        Position t sees positions up to t.
        """
        position = torch.arange(embeddings.shape[1], device=embeddings.device)
        hidden = self.decoder(embeddings[0], position, _WholeSequence(position))
        logits: Tensor = self.head(hidden)[None]
        return logits


class TransformerStep(nn.Module):
    """A language model of CosyVoice seen from outside."""

    def __init__(self, model: TransformerLM) -> None:
        super().__init__()
        self.decoder = model.llm
        self.head = model.llm_decoder

    def forward(self, embeddings: Tensor) -> Tensor:
        """As `Qwen2Step.forward`."""
        valid = torch.ones_like(embeddings[:, :, 0], dtype=torch.bool)
        logits: Tensor = self.head(self.decoder(embeddings, valid))
        return logits


class _WholeSequence:
    """Causal attention of one whole sequence, in operations that a traced graph keeps for any length."""

    def __init__(self, position: Tensor) -> None:
        self.visible = position[None, :] <= position[:, None]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # [T, H, D] -> [G, H/G, T, D] and [T, G, D] -> [G, 1, T, D]: heads that share a key are broadcast against it
        query, key, value = (part.unflatten(1, (key.shape[1], -1)).permute(1, 2, 0, 3) for part in (query, key, value))
        scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5
        weights = scores.masked_fill(~self.visible, float("-inf")).softmax(-1)
        output: Tensor = (weights @ value).permute(2, 0, 1, 3).flatten(1, 2)
        return output


def _step_files(step: Qwen2Step | TransformerStep) -> list[ExportedFile]:
    """The step as TorchScript, and as ONNX where the tracing exporter keeps its shapes free, which Qwen2's are."""

    def inputs(length: int) -> Tensors:
        return (random_tensor(length, 1, length, step.head.in_features),)

    example = inputs(TRACED_LENGTH)
    writers = {f"{STEP_FILE}.zip": traced(step, example)}
    if isinstance(step, Qwen2Step):
        axes = {"embeddings": {1: "seq_len"}, "logits": {1: "seq_len"}}
        writers[f"{STEP_FILE}.onnx"] = onnx(step, example, ["embeddings"], "logits", axes)
    return [
        ExportedFile(name, write, lambda tensors: (step(*tensors),), inputs, LENGTHS) for name, write in writers.items()
    ]


def _text_encoder_files(model: TransformerLM) -> list[ExportedFile]:
    module = CalledEncoder(model.text_encoder)

    def inputs(length: int) -> Tensors:
        return random_tensor(length, 1, length, model.config.text_encoder.input_size), torch.tensor([length])

    def run(loaded: Any, tensors: Tensors) -> Tensors:
        return tuple(loaded(*tensors, decoding_chunk_size=1, num_decoding_left_chunks=-1))

    def whole(tensors: Tensors) -> Tensors:
        return model.text_encoder(tensors[0], _everywhere(tensors[0])), _everywhere(tensors[0])[:, None]

    return [
        ExportedFile(f"llm.text_encoder.{name}.zip", scripted(module, run, dtype), whole, inputs, LENGTHS, dtype)
        for name, dtype in TYPES.items()
    ]


def _decoder_files(model: TransformerLM) -> list[ExportedFile]:
    module = CalledDecoder(model.llm)

    def inputs(length: int) -> Tensors:
        return (random_tensor(length, 1, length, model.config.llm.input_size),)

    def run(loaded: Any, tensors: Tensors) -> Tensors:
        (x,) = tensors
        at_once, mask = loaded(x, torch.tensor([x.size(1)]))
        return at_once, mask, _continue(loaded, x)

    def whole(tensors: Tensors) -> Tensors:
        (x,) = tensors
        encoded = model.llm(x, _everywhere(x))
        return encoded, _everywhere(x)[:, None], encoded

    return [
        ExportedFile(
            f"llm.llm.{name}.zip",
            scripted(module, run, dtype, keep=["forward_chunk"]),
            whole,
            inputs,
            CHUNKED_LENGTHS,
            dtype,
        )
        for name, dtype in TYPES.items()
    ]


def _continue(loaded: Any, x: Tensor) -> Tensor:
    """Encodes [1, T, D] as decoding does: a prompt at once, then one position after the other."""
    prompt = x.size(1) - LAST_STEPS
    cache, unused = x.new_zeros(0, 0, 0, 0), x.new_zeros(0, 0, 0, 0)
    parts, start = [], 0
    for piece in x.split([prompt, *[1] * LAST_STEPS], dim=1):
        size = piece.size(1)
        encoded, cache, unused = loaded.forward_chunk(
            piece,
            offset=start,
            required_cache_size=-1,
            att_cache=cache,
            cnn_cache=unused,
            att_mask=torch.ones(1, size, size, dtype=torch.bool).tril(),
        )
        parts.append(encoded)
        start += size
    return torch.cat(parts, dim=1)


def _everywhere(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.bool)
