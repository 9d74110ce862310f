"""The encoders with the call signatures that the official runtime uses, in code that TorchScript compiles.

The official signatures have arguments for chunks that vary from call to call. The released models never use these:
their chunks are fixed, so here those arguments change nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cosyflow.models.flow.encoder import UpsampleEncoder
from cosyflow.models.layers.attention import distance_table
from cosyflow.models.layers.encoder import Encoder
from cosyflow.models.layers.packing import valid_mask

NO_CACHE = torch.zeros(0, 0, 0, 0)
NO_CONTEXT = torch.zeros(0, 0, 0)
ANY_MASK = torch.ones(0, 0, 0, dtype=torch.bool)


class CalledEncoder(nn.Module):
    """Text encoder and flow encoder of CosyVoice."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, xs: torch.Tensor, xs_lens: torch.Tensor, decoding_chunk_size: int = 0, num_decoding_left_chunks: int = -1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """xs [B, T, input_size], xs_lens [B] -> encoding [B, T, D] and the mask of what is no padding [B, 1, T]."""
        valid = valid_mask(xs_lens, xs.size(1))
        return self.encoder(xs, valid), valid[:, None]


class CalledDecoder(CalledEncoder):
    """The causal encoder that is the language model of CosyVoice: it also continues a sequence."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self.layers: Any = encoder.encoders  # TorchScript sees what they are, and knows no casts
        attention = next(encoder.layers()).self_attn
        self.heads = attention.heads
        self.head_size = attention.head_size

    @torch.jit.export
    def forward_chunk(
        self,
        xs: torch.Tensor,
        offset: int,
        required_cache_size: int,
        att_cache: torch.Tensor = NO_CACHE,
        cnn_cache: torch.Tensor = NO_CACHE,
        att_mask: torch.Tensor = ANY_MASK,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The next Q positions of one sequence.

        Args:
            xs: [1, Q, input_size]
            offset: positions before them; distances are what counts, so that it changes nothing.
            required_cache_size: number of last positions that are kept for the next call; below 0 all.
            att_cache: [layers, H, C, 2K], keys and values of the C positions before, empty at the start.
            cnn_cache: returned unchanged; the layers have no convolution.
            att_mask: attention is causal, whatever it says.

        Returns:
            encoding [1, Q, D], the next `att_cache` and `cnn_cache`.
        """
        x = self.encoder.embed(xs)
        seen = att_cache.size(2)
        keys = seen + x.size(1)
        first_kept = 0 if required_cache_size < 0 else max(keys - required_cache_size, 0)
        table = distance_table(keys - 1, 0, x.size(2), x)
        mask = torch.ones(x.size(1), keys, dtype=torch.bool, device=x.device).tril(seen)
        caches: list[torch.Tensor] = []
        for number, layer in enumerate(self.layers):
            cache = x.new_zeros(1, self.heads, 0, 2 * self.head_size)
            if att_cache.size(0) > 0:
                cache = att_cache[number : number + 1]
            distance_keys = layer.self_attn.project_distances(table)
            x, cache = layer.forward_cached(x, distance_keys, mask, cache)
            caches.append(cache[:, :, first_kept:])
        return self.encoder.after_norm(x), torch.cat(caches), cnn_cache


class CalledUpsampleEncoder(nn.Module):
    """Flow encoder of CosyVoice 2."""

    def __init__(self, encoder: UpsampleEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        xs: torch.Tensor,
        xs_lens: torch.Tensor,
        context: torch.Tensor = NO_CONTEXT,
        decoding_chunk_size: int = 0,
        num_decoding_left_chunks: int = -1,
        streaming: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encodes tokens, whole or the first part of an utterance.

        Args:
            xs: [B, T, input_size]
            xs_lens: [B]
            context: [B, C, input_size], the tokens after those of a first part, which only the lookahead sees.
            streaming: attention by chunks.

        Returns:
            encoding [B, F, D] of the F frames of xs, and the mask of what is no padding [B, 1, F].
        """
        valid = valid_mask(xs_lens, xs.size(1))
        ahead = context.size(1)
        if ahead > 0:
            xs = torch.cat((xs, context), dim=1)
            valid = torch.cat((valid, valid.new_ones(valid.size(0), ahead)), dim=1)
        encoded = self.encoder(xs, valid, streaming, ahead)
        return encoded, valid_mask(xs_lens * self.encoder.factor, encoded.size(1))[:, None]
