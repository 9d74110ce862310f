"""The language model of CosyVoice 1: packing, precision and memory options change nothing but cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from cosyflow.config.transformer import CosyVoice1LMConfig, EncoderConfig
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.transformer_lm import TransformerLM

TINY = CosyVoice1LMConfig(
    text_token_size=30,
    speech_token_size=20,
    spk_embed_dim=8,
    text_encoder=EncoderConfig(12, 16, attention_heads=2, linear_units=24, num_blocks=2, static_chunk_size=1),
    llm=EncoderConfig(
        16,
        16,
        attention_heads=2,
        linear_units=24,
        num_blocks=2,
        layer="transformer",
        input_layer="linear_legacy",
        activation_type="relu",
        static_chunk_size=1,
    ),
)


def examples(*lengths: tuple[int, int], rejected: bool = False) -> list[Example]:
    rng = np.random.default_rng(0)
    return [
        Example(
            utterance=f"utterance-{number}",
            text=rng.integers(0, 30, text),
            speech=rng.integers(0, 20, speech),
            embedding=rng.normal(size=8).astype(np.float32),
            rejected=rng.integers(0, 20, speech + 3) if rejected else None,
        )
        for number, (text, speech) in enumerate(lengths)
    ]


def batch_of(utterances: list[Example], budget: int | None = None) -> PackedBatch:
    return build_batch(utterances, np.zeros(len(utterances), dtype=bool), TINY, budget)


def tiny_model(config: CosyVoice1LMConfig = TINY) -> TransformerLM:
    torch.manual_seed(0)
    return TransformerLM(config).eval()


def gradients(model: TransformerLM, *batches: PackedBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = sum((model(batch).loss_sum for batch in batches), torch.zeros(()))
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("budget", [None, 128], ids=["exact", "budget"])
def test_packed_equals_one_by_one(budget: int | None) -> None:
    model, utterances = tiny_model(), examples((5, 12), (9, 40), (1, 1))
    packed_loss, packed = gradients(model, batch_of(utterances, budget))
    loss, single = gradients(model, *(batch_of([utterance]) for utterance in utterances))
    torch.testing.assert_close(packed_loss, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(packed, single, rtol=1e-4, atol=1e-5)


def test_sequence_logprob_of_pairs() -> None:
    """A DPO batch holds chosen, then rejected sequences; each log-probability is that of the sequence alone."""
    model, pairs = tiny_model(), examples((5, 12), (3, 7), rejected=True)
    together = model(batch_of(pairs), sequence_logprob=True).per_sequence_logprob
    chosen = [replace(pair, rejected=None) for pair in pairs]
    rejected = [replace(pair, speech=pair.rejected, rejected=None) for pair in pairs]
    alone = [model(batch_of([each]), sequence_logprob=True).per_sequence_logprob for each in chosen + rejected]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_bfloat16_activations_keep_float32_weights_and_gradients() -> None:
    batch = batch_of(examples((5, 12), (9, 40)))
    exact, _ = gradients(tiny_model(), batch)
    rounded, grads = gradients(tiny_model(replace(TINY, compute_dtype="bfloat16")), batch)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)
    assert rounded != exact
    assert {grad.dtype for grad in grads.values()} == {torch.float32}


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    batch = batch_of(examples((5, 12), (9, 40)))
    results = []
    for checkpointing in (False, True):
        model = tiny_model(replace(TINY, activation_checkpointing=checkpointing)).train()
        torch.manual_seed(1)  # of dropout
        results.append(gradients(model, batch))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.medium
def test_batches_of_one_budget_compile_once() -> None:
    model, counter = tiny_model(), CompileCounter()
    compiled = torch.compile(model, backend=counter, dynamic=False)
    batches = [batch_of(examples(*lengths), budget=128) for lengths in (((5, 12), (9, 30)), ((4, 20), (6, 17), (2, 9)))]
    first = compiled(batches[0])
    compiled_frames = counter.frame_count
    second = compiled(batches[1])
    assert counter.frame_count == compiled_frames > 0
    for output, batch in zip((first, second), batches, strict=True):
        torch.testing.assert_close(output.loss_sum, model(batch).loss_sum, rtol=1e-5, atol=0)


def test_frozen_text_embedding_gets_no_gradient() -> None:
    model = tiny_model(replace(TINY, freeze_text_embedding=True))
    _, grads = gradients(model, batch_of(examples((5, 12))))
    assert "text_embedding.weight" not in grads
    assert "speech_embedding.weight" in grads


def test_a_missing_speaker_is_named() -> None:
    with pytest.raises(CosyFlowError, match=r"utterance-1.*speaker"):
        batch_of([examples((5, 12))[0], replace(examples((5, 12), (3, 4))[1], embedding=None)])


def test_settings_of_a_language_model_are_causal() -> None:
    with pytest.raises(ValueError, match=r"^llm\.static_chunk_size"):
        CosyVoice1LMConfig(llm=EncoderConfig())


def test_training_flops_count_every_matrix() -> None:
    """Of short sequences, where nearly all is in the matrices; torch counts the forward pass, a third of the whole."""
    wide = {"output_size": 64, "linear_units": 128, "num_blocks": 4}
    llm = replace(TINY.llm, input_size=64, **wide)
    model = tiny_model(replace(TINY, text_encoder=replace(TINY.text_encoder, **wide), llm=llm))
    batch = batch_of(examples(*[(9, 12)] * 10))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch)
    assert model.training_flops(batch.lengths, batch.num_targets) == pytest.approx(
        3 * counter.get_total_flops(), rel=0.1
    )
