"""The language model of CosyVoice 1: an encoded text and a speaker embedding, continued with speech tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.config.transformer import CosyVoice1LMConfig
from cosyflow.models.layers.basic import Linear
from cosyflow.models.layers.encoder import Encoder, GrowingSequence
from cosyflow.models.layers.packing import Rows
from cosyflow.models.llm.batch import SPEAKER, SPECIAL, SPEECH, TEXT, PackedBatch, PackedText
from cosyflow.models.llm.decoding import Continuation
from cosyflow.models.llm.loss import LMOutput, next_token_loss, sum_by_sequence


class TransformerLM(nn.Module):
    """Predicts speech tokens; `state_dict` has the keys of the official `llm.pt`. D channels inside."""

    def __init__(self, config: CosyVoice1LMConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = config.layout
        self.compute_dtype: torch.dtype = getattr(torch, config.compute_dtype)
        size = config.llm.input_size
        self.text_embedding = nn.Embedding(config.text_token_size, config.text_encoder.input_size)
        self.text_encoder = Encoder(config.text_encoder, config.activation_checkpointing)
        self.text_encoder_affine_layer = Linear(config.text_encoder.output_size, size)
        self.llm_embedding = nn.Embedding(2, size)
        self.llm = Encoder(config.llm, config.activation_checkpointing)
        self.llm_decoder = Linear(config.llm.output_size, self.layout.output_ids)
        self.speech_embedding = nn.Embedding(config.speech_token_size, size)
        self.spk_embed_affine_layer = Linear(config.spk_embed_dim, size)
        if config.freeze_text_embedding:
            self.text_embedding.weight.requires_grad_(False)

    def forward(self, batch: PackedBatch, sequence_logprob: bool = False) -> LMOutput:
        """Computes the loss of a batch.

        Args:
            batch: N sequences in T positions, M of which have a target.
            sequence_logprob: also give the log-probability of each sequence.
        """
        hidden = self.hidden(batch).index_select(0, batch.target_positions)  # [M, D]
        loss, logprob, hit = next_token_loss(hidden, self.llm_decoder, batch.targets, self.config.lsm_weight)
        per_sequence = None
        if sequence_logprob:
            per_sequence = sum_by_sequence(logprob, batch.target_sequence, batch.num_sequences)
        return LMOutput(loss.sum(), hit.sum(), per_sequence)

    def hidden(self, batch: PackedBatch) -> torch.Tensor:
        """The transformer's output at every position: [T, D]."""
        return self.llm.forward_packed(self.embed(batch), rows_of(batch))

    def embed(self, batch: PackedBatch) -> torch.Tensor:
        """The embedding of every position: [T, D] in the compute type; zero at padding."""
        if batch.text is None or batch.embedding is None:
            raise ValueError("a batch for CosyVoice 1 has packed text and speaker embeddings")
        tables = (
            (TEXT, self.encode_text(batch.text)),
            (SPEECH, self.speech_embedding.weight),
            (SPECIAL, self.llm_embedding.weight),
            (SPEAKER, self.project_speaker(batch.embedding)),
        )
        embedded = torch.zeros((), device=batch.index.device)
        for source, table in tables:
            chosen = batch.source == source
            embedded = torch.where(chosen[:, None], F.embedding(batch.index * chosen, table), embedded)
        return embedded.to(self.compute_dtype)

    def encode_text(self, text: PackedText) -> torch.Tensor:
        """Encodes the U tokens of all texts: [U, D]."""
        embedded: torch.Tensor = self.text_embedding(text.ids)
        encoded: torch.Tensor = self.text_encoder_affine_layer(
            self.text_encoder.forward_packed(embedded.to(self.compute_dtype), rows_of(text))
        )
        return encoded

    def project_speaker(self, embedding: torch.Tensor) -> torch.Tensor:
        """Speaker embeddings of any length [N, E] -> [N, D]."""
        projected: torch.Tensor = self.spk_embed_affine_layer(F.normalize(embedding, dim=1))
        return projected

    def prompt(
        self, text: Sequence[int], speech: Sequence[int] = (), embedding: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Everything before the first new speech token: [n, D].

        Args:
            text: ids of the prompt recording's transcript and of the text to speak, in this order.
            speech: ids of the prompt recording.
            embedding: float32 [E], the speaker; the model also continues without one.
        """
        ids = self._ids(text)
        position = torch.arange(len(ids), device=ids.device)
        encoded = self.text_encoder.forward_packed(
            self.text_embedding(ids).to(self.compute_dtype), Rows.of(torch.zeros_like(ids), position, [len(ids)])
        )
        special = self.llm_embedding.weight.to(self.compute_dtype)
        parts = [special[self.layout.sos][None]]
        if embedding is not None:
            parts.append(self.project_speaker(embedding[None].to(special.device)).to(self.compute_dtype))
        parts += [self.text_encoder_affine_layer(encoded), special[self.layout.task][None], self.embed_speech(speech)]
        return torch.cat(parts)

    def embed_speech(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of speech tokens: [n, D]."""
        embedded: torch.Tensor = self.speech_embedding(self._ids(ids))
        return embedded.to(self.compute_dtype)

    def _ids(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self.llm_embedding.weight.device)

    def begin(self) -> Continuation:
        """Starts an empty sequence; the keys and values of what it is given are kept."""
        sequence = GrowingSequence(self.llm)

        def proceed(embedded: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.llm_decoder(sequence.append(embedded[None])[0, -1])
            return scores.float()

        return proceed

    def training_flops(self, lengths: Sequence[int], num_targets: int) -> float:
        """Floating point operations of a forward and a backward pass over sequences of these lengths.

        Six for each weight that a position is multiplied with (https://arxiv.org/abs/2001.08361), and for the causal
        half of the three products of attention (by key, by distance, with values); the text encoder's attention is left
        out.
        """
        text_tokens = sum(lengths) - 2 * len(lengths) - num_targets
        text = _matrix_weights(self.text_encoder) + self.text_encoder_affine_layer.weight.numel()
        attention = 1.5 * self.config.llm.num_blocks * self.config.llm.output_size * sum(n * n for n in lengths)
        head = self.llm_decoder.weight.numel()
        return 6.0 * (_matrix_weights(self.llm) * sum(lengths) + text * text_tokens + head * num_targets + attention)


def rows_of(packed: PackedBatch | PackedText) -> Rows:
    """A row for each sequence.

    Compiled code has as many rows as there are boundaries, as wide as the batch says, because these numbers are fixed;
    otherwise rows are no more and no wider than the sequences at hand need.
    """
    if torch.compiler.is_compiling():
        return Rows.of_all(packed.sequence, packed.position, packed.cu_seqlens.size(0) - 1, packed.max_seqlen)
    return Rows.of(packed.sequence, packed.position, packed.lengths)


def _matrix_weights(encoder: Encoder) -> int:
    """Weights that every position is multiplied with; the maps of the distances see no position."""
    return sum(
        weight.numel()
        for name, weight in encoder.named_parameters()
        if weight.dim() == 2 and not name.endswith(("linear_pos.weight", "pos_bias_u", "pos_bias_v"))
    )
