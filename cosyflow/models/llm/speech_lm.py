"""The language models of CosyVoice 2 and 3: a Qwen2 decoder that continues text with speech tokens.

The two versions differ in their settings only: where the special embeddings lie and how many ids the head has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig
from cosyflow.models.layers.basic import Linear
from cosyflow.models.llm.batch import SPECIAL, SPEECH, TEXT, PackedBatch
from cosyflow.models.llm.decoding import Continuation
from cosyflow.models.llm.loss import LMOutput, next_token_loss, sum_by_sequence
from cosyflow.models.llm.qwen2 import CachedAttention, Qwen2Decoder, Qwen2WithTextHead, packed_attention

_INITIAL_DEVIATION = 0.02


class SpeechLM(nn.Module):
    """Predicts speech tokens from text tokens; `state_dict` has the keys of the official `llm.pt`."""

    def __init__(self, config: CosyVoice2LMConfig | CosyVoice3LMConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = config.layout
        self.compute_dtype = getattr(torch, config.compute_dtype)
        size = config.qwen2.hidden_size
        if self.layout.special_table == "special":
            self.llm_embedding = nn.Embedding(2, size)
        self.llm = nn.ModuleDict({"model": Qwen2WithTextHead(config.qwen2)})
        self.llm_decoder = Linear(size, self.layout.output_ids, bias=config.head_bias)
        self.speech_embedding = nn.Embedding(self.layout.output_ids, size)
        self.apply(_initialise)
        if config.freeze_text_embedding:
            self.decoder.embed_tokens.weight.requires_grad_(False)

    @property
    def decoder(self) -> Qwen2Decoder:
        """The Qwen2 decoder inside."""
        return cast(Qwen2WithTextHead, self.llm["model"]).model

    @property
    def special_embedding(self) -> nn.Embedding:
        """The table that holds the start and the task embedding."""
        return self.llm_embedding if self.layout.special_table == "special" else self.speech_embedding

    def forward(self, batch: PackedBatch, sequence_logprob: bool = False) -> LMOutput:
        """Computes the loss of a batch.

        Args:
            batch: N sequences in T positions, M of which have a target.
            sequence_logprob: also give the log-probability of each sequence.
        """
        hidden = self.hidden(batch)
        # [T, H] -> [M, H]: the head is multiplied only where there is something to predict
        hidden = hidden.index_select(0, batch.target_positions)
        loss, logprob, hit = next_token_loss(hidden, self.llm_decoder, batch.targets, self.config.lsm_weight)
        per_sequence = None
        if sequence_logprob:
            per_sequence = sum_by_sequence(logprob, batch.target_sequence, batch.num_sequences)
        return LMOutput(loss.sum(), hit.sum(), per_sequence)

    def hidden(self, batch: PackedBatch) -> Tensor:
        """The decoder's output at every position, [T, H]."""
        attention = packed_attention(batch.cu_seqlens, batch.max_seqlen, batch.lengths, self.compute_dtype)
        checkpointing = self.config.activation_checkpointing and self.training
        output: Tensor = self.decoder(self.embed(batch), batch.position, attention, checkpointing)
        return output

    def embed(self, batch: PackedBatch) -> Tensor:
        """The embedding of every position, [T, H] in the compute type; zero at padding."""
        tables = [(TEXT, self.decoder.embed_tokens), (SPEECH, self.speech_embedding)]
        if self.layout.special_table == "special":
            tables.append((SPECIAL, self.special_embedding))
        embedded = torch.zeros((), device=batch.index.device)
        for source, table in tables:
            chosen = batch.source == source
            embedded = torch.where(chosen[:, None], table(batch.index * chosen), embedded)
        return embedded.to(self.compute_dtype)

    def prompt(self, text: Sequence[int], speech: Sequence[int] = ()) -> Tensor:
        """[n, H], what comes before the first new token when the text is known.

        Args:
            text: ids of instruct, of the prompt recording's transcript and of the text to speak, in this order.
            speech: ids of the prompt recording.
        """
        parts = [self.embed_special(self.layout.sos), self.embed_text(text), self.embed_special(self.layout.task)]
        return torch.cat([*parts, self.embed_speech(speech)])

    def embed_text(self, ids: Sequence[int]) -> Tensor:
        return self._look_up(self.decoder.embed_tokens, ids)

    def embed_speech(self, ids: Sequence[int]) -> Tensor:
        return self._look_up(self.speech_embedding, ids)

    def embed_special(self, row: int) -> Tensor:
        return self._look_up(self.special_embedding, [row])

    def _look_up(self, table: nn.Embedding, ids: Sequence[int]) -> Tensor:
        rows = torch.tensor(ids, dtype=torch.int64, device=table.weight.device)
        embedded: Tensor = table(rows)
        return embedded.to(self.compute_dtype)

    def begin(self) -> Continuation:
        """Starts an empty sequence; the keys and values of what it is given are kept."""
        attention = CachedAttention()

        def proceed(embedded: Tensor) -> Tensor:
            start = attention.length
            position = torch.arange(start, start + len(embedded), device=embedded.device)
            hidden = self.decoder(embedded, position, attention)
            scores: Tensor = self.llm_decoder(hidden[-1]).float()
            return scores

        return proceed

    def training_flops(self, lengths: Sequence[int], num_targets: int) -> float:
        """Floating point operations of a forward and a backward pass over sequences of these lengths.

        Six for each weight that a position is multiplied with (https://arxiv.org/abs/2001.08361), and
        for the causal half of the attention matrix; what activation checkpointing repeats does not count.
        """
        layers = sum(weight.numel() for weight in self.decoder.layers.parameters() if weight.dim() == 2)
        attention = self.config.qwen2.num_hidden_layers * self.config.qwen2.hidden_size * sum(n * n for n in lengths)
        return 6.0 * (layers * sum(lengths) + self.llm_decoder.weight.numel() * num_targets + attention)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INITIAL_DEVIATION)
    if isinstance(module, Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
