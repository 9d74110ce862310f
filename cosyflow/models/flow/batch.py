"""Padded batches for the flow-matching models, and the random numbers that one training step needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from cosyflow.config.flow import FlowConfig
from cosyflow.errors import CosyFlowError


@dataclass(frozen=True)
class FlowExample:
    """One utterance."""

    utterance: str
    speech: np.ndarray
    """int64 [s], speech tokens."""
    mel: np.ndarray
    """float32 [frames, mel channels]"""
    embedding: np.ndarray
    """float32 [D], speaker embedding."""


@dataclass(frozen=True)
class FlowBatch:
    """B utterances, padded with zeros to S tokens and F frames."""

    utterances: list[str]
    token_lengths: list[int]
    """Tokens of each utterance, on the host."""
    mel_lengths: list[int]
    """Frames of each utterance, on the host."""
    token: torch.Tensor
    """int64 [B, S]"""
    token_len: torch.Tensor
    """int64 [B]"""
    mel: torch.Tensor
    """float32 [B, F, mel channels]"""
    mel_len: torch.Tensor
    """int64 [B]"""
    embedding: torch.Tensor
    """float32 [B, D]"""

    @property
    def num_frames(self) -> int:
        """Frames that are not padding."""
        return sum(self.mel_lengths)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch with its tensors on `device`."""
        return replace(
            self,
            token=self.token.to(device, non_blocking=non_blocking),
            token_len=self.token_len.to(device, non_blocking=non_blocking),
            mel=self.mel.to(device, non_blocking=non_blocking),
            mel_len=self.mel_len.to(device, non_blocking=non_blocking),
            embedding=self.embedding.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, from where copies to the GPU overlap with work."""
        return replace(
            self,
            token=self.token.pin_memory(),
            token_len=self.token_len.pin_memory(),
            mel=self.mel.pin_memory(),
            mel_len=self.mel_len.pin_memory(),
            embedding=self.embedding.pin_memory(),
        )


def build_flow_batch(examples: Sequence[FlowExample], config: FlowConfig) -> FlowBatch:
    """Pads the examples, in their order, into one batch.

    Raises:
        CosyFlowError: names the utterance that is empty, has a token outside the vocabulary, has a mel or a speaker
            embedding of the wrong size, or whose mel frames are not those that its tokens stand for.
    """
    if not examples:
        raise ValueError("a batch needs at least one example")
    for example in examples:
        _check(example, config)
    tokens = np.array([len(example.speech) for example in examples])
    frames = np.array([len(example.mel) for example in examples])
    token = np.zeros((len(examples), tokens.max()), dtype=np.int64)
    mel = np.zeros((len(examples), frames.max(), config.output_size), dtype=np.float32)
    for row, example in enumerate(examples):
        token[row, : tokens[row]] = example.speech
        mel[row, : frames[row]] = example.mel
    return FlowBatch(
        utterances=[example.utterance for example in examples],
        token_lengths=tokens.tolist(),
        mel_lengths=frames.tolist(),
        token=torch.from_numpy(token),
        token_len=torch.from_numpy(tokens),
        mel=torch.from_numpy(mel),
        mel_len=torch.from_numpy(frames),
        embedding=torch.from_numpy(np.stack([example.embedding for example in examples]).astype(np.float32)),
    )


def _check(example: FlowExample, config: FlowConfig) -> None:
    name, speech, mel = example.utterance, example.speech, example.mel
    if len(speech) == 0:
        raise CosyFlowError(f"utterance {name}: it has no speech tokens; leave it out of the data")
    if speech.min() < 0 or speech.max() >= config.vocab_size:
        raise CosyFlowError(
            f"utterance {name}: speech tokens {speech.min()}..{speech.max()} are not all in the model's 0.."
            f"{config.vocab_size - 1}; was it made with another tokenizer?"
        )
    if mel.ndim != 2 or mel.shape[1] != config.output_size:
        raise CosyFlowError(
            f"utterance {name}: its mel has the shape {mel.shape}, the model needs (frames, {config.output_size})"
        )
    expected = config.mel_frames(len(speech))
    if abs(len(mel) - expected) > config.frame_tolerance:
        raise CosyFlowError(
            f"utterance {name}: {len(speech)} speech tokens stand for {expected} mel frames, but it has {len(mel)};"
            " make its tokens and its mel from the same audio"
        )
    if example.embedding.shape != (config.spk_embed_dim,):
        raise CosyFlowError(
            f"utterance {name}: its speaker embedding is {example.embedding.shape}, the model needs"
            f" {config.spk_embed_dim} numbers"
        )


@dataclass(frozen=True)
class FlowDraws:
    """Every random number of one training step, but those of dropout."""

    streaming: bool
    """Attention by chunks."""
    prompt_len: torch.Tensor
    """int64 [B], leading frames that are given as a condition."""
    time: torch.Tensor
    """float32 [B], in [0, 1)."""
    noise: torch.Tensor
    """float32 [B, mel channels, F], standard normal, zero at padding."""
    keep_condition: torch.Tensor
    """bool [B], False where mean, speaker and given frames are all removed."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The draws with their tensors on `device`."""
        return replace(
            self,
            prompt_len=self.prompt_len.to(device, non_blocking=non_blocking),
            time=self.time.to(device, non_blocking=non_blocking),
            noise=self.noise.to(device, non_blocking=non_blocking),
            keep_condition=self.keep_condition.to(device, non_blocking=non_blocking),
        )


def draw(batch: FlowBatch, config: FlowConfig, seed: int) -> FlowDraws:
    """Draws for a batch on the CPU: the same on every machine, and no global seed is touched.

    What is drawn for an utterance depends on `seed` and its name, not on the batch that it is in; only the attention is
    by chunks or not for a whole batch.
    """
    generators = [_generator(seed, name) for name in batch.utterances]
    uniform = torch.stack([torch.rand(4, generator=generator) for generator in generators])  # [B, 4]
    prompted, share, time, condition = uniform.unbind(dim=1)
    longest = (config.longest_prompt * torch.tensor(batch.mel_lengths)).long()
    noise = torch.zeros(len(generators), config.output_size, batch.mel.size(1))
    for row, (generator, frames) in enumerate(zip(generators, batch.mel_lengths, strict=True)):
        noise[row, :, :frames] = torch.randn(config.output_size, frames, generator=generator)
    of_batch = _generator(seed, "\0".join(batch.utterances))
    return FlowDraws(
        streaming=bool(torch.rand(1, generator=of_batch) < config.streaming_rate),
        prompt_len=torch.where(prompted < config.prompt_rate, (share * (longest + 1)).long(), 0),
        time=time,
        noise=noise,
        keep_condition=condition >= config.matching.training_cfg_rate,
    )


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
