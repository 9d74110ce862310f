"""The official CosyVoice 2 language model, from a checkout given by path, in a plain loop with its own batching."""

from __future__ import annotations

import functools
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

SORT_WINDOW = 500
MEL_FRAMES_PER_TOKEN = 2
_OPTIONAL = ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi", "onnxruntime", "whisper")
"""Imported by the official modules, not used by the model."""


@functools.cache
def import_official(checkout: Path) -> types.ModuleType:
    """Imports `cosyvoice.llm.llm`, with empty modules in place of absent ones that the model does not use."""
    for name in _OPTIONAL:
        if find_spec(name.split(".")[0]) is None:
            module = sys.modules[name] = types.ModuleType(name)
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], last, module)
    sys.path.insert(0, str(checkout))
    import cosyvoice.llm.llm as official

    return official


def build(checkout: Path, sizes: dict, speech_token_size: int) -> torch.nn.Module:
    """The official model with random weights; `sizes` as in a Qwen2 `config.json`."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    official = import_official(checkout)
    sizes = dict(sizes)
    theta = sizes.pop("rope_theta")
    try:
        config = Qwen2Config(**sizes, rope_theta=theta, tie_word_embeddings=True)
    except TypeError:
        config = Qwen2Config(**sizes, rope_parameters={"rope_type": "default", "rope_theta": theta})
    encoder = official.Qwen2Encoder.__new__(official.Qwen2Encoder)
    torch.nn.Module.__init__(encoder)
    encoder.model = Qwen2ForCausalLM(config)
    encoder.model.tie_weights()
    width = sizes["hidden_size"]
    model = official.Qwen2LM(width, width, speech_token_size, encoder, sampling=None)
    # without instruct tokens the official builder makes empty ones of width 896; these have the model's width
    prepare = model.prepare_lm_input_target

    def prepare_at_any_width(*inputs):
        count = len(inputs[1])
        nothing, length = torch.zeros(count, 0, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        return prepare(*inputs, nothing, torch.zeros(count, 0, width, device=inputs[2].device), length)

    model.prepare_lm_input_target = prepare_at_any_width
    return model


def batches(examples: list, max_frames: int) -> list[dict]:
    """Sorted within windows, then filled while the longest times the number of utterances is within `max_frames`."""
    result, current, longest = [], [], 0
    for start in range(0, len(examples), SORT_WINDOW):
        for example in sorted(examples[start : start + SORT_WINDOW], key=lambda example: len(example.speech)):
            frames = len(example.speech) * MEL_FRAMES_PER_TOKEN
            if current and max(longest, frames) * (len(current) + 1) > max_frames:
                result.append(_padded(current))
                current, longest = [], 0
            current.append(example)
            longest = max(longest, frames)
    return [*result, _padded(current)]


def _padded(examples: list) -> dict:
    batch = {"num_tokens": sum(len(example.text) + len(example.speech) + 2 for example in examples)}
    for key, column in (("text_token", "text"), ("speech_token", "speech")):
        rows = [torch.from_numpy(np.asarray(getattr(example, column))) for example in examples]
        batch[key] = pad_sequence(rows, batch_first=True)
        batch[f"{key}_len"] = torch.tensor([len(row) for row in rows], dtype=torch.int32)
    return batch


class Loop:
    """The official update: Adam, clipping, and on CUDA autocast to bfloat16 with a gradient scaler."""

    def __init__(self, model: torch.nn.Module, device: torch.device, accum_grad: int) -> None:
        self.model, self.device, self.accum_grad = model.to(device).train(), device, accum_grad
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
        self.scaler = torch.amp.GradScaler(enabled=device.type == "cuda")
        self.count = 0

    def step(self, batch: dict) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.model(batch, self.device)["loss"] / self.accum_grad
        self.scaler.scale(loss).backward()
        self.count += 1
        if self.count % self.accum_grad == 0:
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5)
            if torch.isfinite(norm):
                self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
