"""The flow-matching models of CosyVoice 1, 2 and 3."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.config.flow import CosyVoice1FlowConfig, CosyVoice2FlowConfig, CosyVoice3FlowConfig, FlowConfig
from cosyflow.errors import CosyFlowError
from cosyflow.models.flow.batch import FlowBatch, FlowDraws
from cosyflow.models.flow.dit import DiT
from cosyflow.models.flow.encoder import EDGE_TOKENS, LengthRegulator, Lookahead, UpsampleEncoder
from cosyflow.models.flow.matching import Condition, FlowMatching, fixed_noise, seeded_noise
from cosyflow.models.flow.unet import UNet
from cosyflow.models.layers.basic import Linear
from cosyflow.models.layers.encoder import Encoder
from cosyflow.models.layers.packing import Frames, valid_mask


class FlowOutput(NamedTuple):
    """Result of a training step: a tuple, as what shares out weights looks in those for tensors to follow."""

    loss_sum: torch.Tensor
    """[], squared error, mean over mel channels, sum over frames; divide it by the frames of all ranks."""


class Flow(nn.Module, ABC):
    """Speech tokens, a speaker and known mel frames -> mel spectrogram."""

    decoder: FlowMatching

    def __init__(self, config: FlowConfig, token_channels: int) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, token_channels)
        self.spk_embed_affine_layer = Linear(config.spk_embed_dim, config.output_size)

    @abstractmethod
    def encode_batch(self, batch: FlowBatch, streaming: bool) -> torch.Tensor:
        """The mean of the flow at the frames of a batch: [B, C, F]."""

    def forward(self, batch: FlowBatch, draws: FlowDraws) -> FlowOutput:
        """The training loss with the given random numbers."""
        mu = self.encode_batch(batch, draws.streaming)
        mel = batch.mel.transpose(1, 2)  # [B, C, F]
        mask = valid_mask(batch.mel_len, mel.size(2))[:, None].to(mu.dtype)
        given = valid_mask(draws.prompt_len, mel.size(2))[:, None]
        condition = Condition(mu, mask, self.project_speaker(batch.embedding), mel * given)
        condition = condition.keep(draws.keep_condition)
        frames = Frames.of(batch.mel_len, batch.mel_lengths)
        loss_sum = self.decoder.loss(mel, draws.noise, draws.time, condition, frames, draws.streaming)
        return FlowOutput(loss_sum)

    def embed(self, token: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Token ids [B, S] -> [B, S, token channels], zero at padding."""
        embedded: torch.Tensor = self.input_embedding(token)
        return embedded * valid[:, :, None]

    def project_speaker(self, embedding: torch.Tensor) -> torch.Tensor:
        """Speaker embedding [B, D] of any length -> [B, C]."""
        projected: torch.Tensor = self.spk_embed_affine_layer(F.normalize(embedding, dim=1))
        return projected

    @abstractmethod
    def initial_noise(self, frames: int, seed: int) -> torch.Tensor:
        """Where the path to a mel spectrogram begins: [1, C, frames], on the CPU."""

    @abstractmethod
    def generate(
        self,
        token: torch.Tensor,
        prompt_token: torch.Tensor,
        prompt_mel: torch.Tensor,
        embedding: torch.Tensor,
        seed: int = 0,
    ) -> torch.Tensor:
        """The mel spectrogram of a whole utterance.

        Args:
            token: int64 [1, S], its speech tokens.
            prompt_token: int64 [1, P], speech tokens of the prompt; P may be 0.
            prompt_mel: [1, G, C], the prompt's mel frames.
            embedding: [1, D], speaker embedding.
            seed: of the noise, where the version draws any.

        Returns:
            [1, C, frames], without the prompt.

        Raises:
            CosyFlowError: there is no token to speak, or the prompt has more frames than its tokens stand for.
        """

    def follow(
        self, mu: torch.Tensor, prompt_mel: torch.Tensor, embedding: torch.Tensor, noise: torch.Tensor, streaming: bool
    ) -> torch.Tensor:
        """From noise to mel: mu and noise [1, C, F] -> [1, C, F - G], the frames after the G of the prompt."""
        prompt_frames = prompt_mel.size(1)
        if prompt_frames >= mu.size(2):
            raise CosyFlowError(
                f"prompt: {prompt_frames} mel frames leave nothing of the {mu.size(2)} frames of prompt and text; were"
                " its speech tokens and its mel made from the same audio?"
            )
        known = F.pad(prompt_mel.transpose(1, 2), (0, mu.size(2) - prompt_frames))
        condition = Condition(mu, mu.new_ones(1, 1, mu.size(2)), self.project_speaker(embedding), known.to(mu))
        return self.decoder.solve(noise.to(mu), condition, streaming)[:, :, prompt_frames:]


@dataclass(frozen=True)
class FlowCache:
    """What a chunk of CosyVoice 1 hands to the next, so that their overlap is the same."""

    noise: torch.Tensor
    """[1, C, G + 34], of the prompt's frames and of the last."""
    mu: torch.Tensor
    """[1, C, G + 34]"""


OVERLAP_FRAMES = 34
"""Frames that successive chunks of CosyVoice 1 share."""


class CosyVoice1Flow(Flow):
    """Conformer encoder and interpolation; keys of the official `MaskedDiffWithXvec`."""

    def __init__(self, config: CosyVoice1FlowConfig) -> None:
        super().__init__(config, config.encoder.input_size)
        self.frames_of = config.mel_frames
        self.encoder = Encoder(config.encoder)
        self.encoder_proj = Linear(config.encoder.output_size, config.output_size)
        self.decoder = FlowMatching(config.matching, UNet(config.estimator))
        self.length_regulator = LengthRegulator(config.output_size, config.regulator_layers)

    def encode_batch(self, batch: FlowBatch, streaming: bool) -> torch.Tensor:
        valid = valid_mask(batch.token_len, batch.token.size(1))
        encoded = self.encoder_proj(self.encoder(self.embed(batch.token, valid), valid))
        frames = batch.mel.size(1)
        mu: torch.Tensor = self.length_regulator(encoded, frames)
        return mu * valid_mask(batch.mel_len, frames)[:, None]

    def initial_noise(self, frames: int, seed: int) -> torch.Tensor:
        return seeded_noise(self.config.output_size, frames, seed)

    def generate(
        self,
        token: torch.Tensor,
        prompt_token: torch.Tensor,
        prompt_mel: torch.Tensor,
        embedding: torch.Tensor,
        seed: int = 0,
    ) -> torch.Tensor:
        frames = prompt_mel.size(1) + self.frames_of(token.size(1))
        noise = self.initial_noise(frames, seed)
        return self.generate_chunk(token, prompt_token, prompt_mel, embedding, noise, None)[0]

    @torch.inference_mode()
    def generate_chunk(
        self,
        token: torch.Tensor,
        prompt_token: torch.Tensor,
        prompt_mel: torch.Tensor,
        embedding: torch.Tensor,
        noise: torch.Tensor,
        cache: FlowCache | None,
    ) -> tuple[torch.Tensor, FlowCache]:
        """One chunk; arguments as for `generate`, `noise` [1, C, frames of prompt and chunk].

        Returns:
            mel [1, C, frames], and the cache for the next chunk.
        """
        prompt_frames, frames = prompt_mel.size(1), self.frames_of(token.size(1))
        if frames == 0:
            raise CosyFlowError(f"speech tokens: {token.size(1)} are too few for a mel frame")
        tokens = torch.cat((prompt_token, token), dim=1)
        valid = torch.ones_like(tokens, dtype=torch.bool)
        encoded = self.encoder_proj(self.encoder(self.embed(tokens, valid), valid))
        prompt, utterance = encoded.split((prompt_token.size(1), token.size(1)), dim=1)
        mu = self.length_regulator.stretch_parts(prompt, utterance, prompt_frames, frames, self.frames_of(EDGE_TOKENS))
        noise = noise.to(mu)
        if cache is not None:
            noise = torch.cat((cache.noise, noise[:, :, cache.noise.size(2) :]), dim=2)
            mu = torch.cat((cache.mu, mu[:, :, cache.mu.size(2) :]), dim=2)
        cache = FlowCache(_prompt_and_end(noise, prompt_frames), _prompt_and_end(mu, prompt_frames))
        return self.follow(mu, prompt_mel, embedding, noise, streaming=False), cache


def _prompt_and_end(x: torch.Tensor, prompt_frames: int) -> torch.Tensor:
    return torch.cat((x[:, :, :prompt_frames], x[:, :, -OVERLAP_FRAMES:]), dim=2)


class ChunkedFlow(Flow):
    """What CosyVoice 2 and 3 share: one set of weights for whole utterances and for chunks, and constant noise."""

    @abstractmethod
    def encode(self, token: torch.Tensor, streaming: bool, final: bool) -> torch.Tensor:
        """The mean of the flow of one utterance: token [1, S] -> [1, C, F]; `final`: see `generate_chunk`."""

    def initial_noise(self, frames: int, seed: int) -> torch.Tensor:
        return fixed_noise(self.config.output_size, frames)

    def generate(
        self,
        token: torch.Tensor,
        prompt_token: torch.Tensor,
        prompt_mel: torch.Tensor,
        embedding: torch.Tensor,
        seed: int = 0,
    ) -> torch.Tensor:
        return self.generate_chunk(token, prompt_token, prompt_mel, embedding, streaming=False, final=True)

    @torch.inference_mode()
    def generate_chunk(
        self,
        token: torch.Tensor,
        prompt_token: torch.Tensor,
        prompt_mel: torch.Tensor,
        embedding: torch.Tensor,
        streaming: bool,
        final: bool,
    ) -> torch.Tensor:
        """The mel of the tokens so far; arguments and result as for `generate`.

        Args:
            streaming: attention by chunks, so that what was made of fewer tokens does not change.
            final: no token follows; otherwise the last ones serve as lookahead and have no frames yet.
        """
        tokens = torch.cat((prompt_token, token), dim=1)
        mu = self.encode(tokens, streaming, final)
        return self.follow(mu, prompt_mel, embedding, self.initial_noise(mu.size(2), seed=0), streaming)


class CosyVoice2Flow(ChunkedFlow):
    """Upsampling conformer and causal U-Net; keys of the official `CausalMaskedDiffWithXvec`."""

    def __init__(self, config: CosyVoice2FlowConfig) -> None:
        layers = config.encoder.layers
        super().__init__(config, layers.input_size)
        self.lookahead = config.encoder.pre_lookahead_len
        self.encoder = UpsampleEncoder(config.encoder)
        self.encoder_proj = Linear(layers.output_size, config.output_size)
        self.decoder = FlowMatching(config.matching, UNet(config.estimator))

    def encode_batch(self, batch: FlowBatch, streaming: bool) -> torch.Tensor:
        valid = valid_mask(batch.token_len, batch.token.size(1))
        tokens = Frames.of(batch.token_len, batch.token_lengths)
        mu: torch.Tensor = self.encoder_proj(
            self.encoder.forward_packed(self.embed(batch.token, valid), tokens, streaming)
        )
        return mu.transpose(1, 2)

    def encode(self, token: torch.Tensor, streaming: bool, final: bool) -> torch.Tensor:
        valid = torch.ones_like(token, dtype=torch.bool)
        encoded = self.encoder(self.embed(token, valid), valid, streaming, 0 if final else self.lookahead)
        mu: torch.Tensor = self.encoder_proj(encoded)
        return mu.transpose(1, 2)


class CosyVoice3Flow(ChunkedFlow):
    """Lookahead convolution and diffusion transformer; keys of the official `CausalMaskedDiffWithDiT`."""

    def __init__(self, config: CosyVoice3FlowConfig) -> None:
        super().__init__(config, config.output_size)
        self.lookahead = config.pre_lookahead_len
        self.frames_per_token = config.token_mel_ratio
        self.pre_lookahead_layer = Lookahead(
            config.output_size, config.pre_lookahead_channels, config.pre_lookahead_len
        )
        self.decoder = FlowMatching(config.matching, DiT(config.estimator))

    def encode_batch(self, batch: FlowBatch, streaming: bool) -> torch.Tensor:
        mixed = self.pre_lookahead_layer(self.embed(batch.token, valid_mask(batch.token_len, batch.token.size(1))))
        return self.repeat(mixed)

    def repeat(self, mixed: torch.Tensor) -> torch.Tensor:
        """Tokens [B, S, C] -> frames [B, C, F]."""
        return mixed.repeat_interleave(self.frames_per_token, dim=1).transpose(1, 2)

    def encode(self, token: torch.Tensor, streaming: bool, final: bool) -> torch.Tensor:
        mixed: torch.Tensor = self.pre_lookahead_layer(self.embed(token, torch.ones_like(token, dtype=torch.bool)))
        if not final:
            mixed = mixed[:, : mixed.size(1) - self.lookahead]
        return self.repeat(mixed)


def build_flow(config: FlowConfig) -> Flow:
    """The model of the version that the settings are for."""
    match config:
        case CosyVoice1FlowConfig():
            return CosyVoice1Flow(config)
        case CosyVoice2FlowConfig():
            return CosyVoice2Flow(config)
        case CosyVoice3FlowConfig():
            return CosyVoice3Flow(config)
    raise TypeError(f"{type(config).__name__} is not the settings of a version")
