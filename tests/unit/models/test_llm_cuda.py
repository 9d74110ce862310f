"""The CUDA path of the language model; without a device, fake tensors tell of shapes, waits and recompiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from cosyflow.config.llm import CosyVoice2LMConfig, Qwen2Config
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.layout import build_batch
from cosyflow.models.llm.speech_lm import SpeechLM

CONFIG = CosyVoice2LMConfig(
    qwen2=Qwen2Config(vocab_size=90, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
    speech_token_size=50,
    compute_dtype="bfloat16",
)


def batch_of(count: int) -> PackedBatch:
    draw = np.random.default_rng(count)
    examples = [
        Example(f"utterance {number}", draw.integers(0, 90, 3 + number), draw.integers(0, 50, 45))
        for number in range(count)
    ]
    return build_batch(examples, draw.random(count) < 0.5, CONFIG, budget=512)


@pytest.fixture
def fake_cuda():
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda")


def model_on(device: torch.device, **changes) -> SpeechLM:
    with device:
        return SpeechLM(replace(CONFIG, **changes))


def test_a_forward_pass_never_waits_for_the_device(fake_cuda):
    """Reading a fake tensor's value raises, as does anything that would have to."""
    output = model_on(fake_cuda)(batch_of(6).to(fake_cuda), sequence_logprob=True)

    assert output.loss_sum.device.type == "cuda"
    assert output.loss_sum.dtype == torch.float32
    assert output.per_sequence_logprob.shape == (6,)
    with pytest.raises(DataDependentOutputException):
        output.loss_sum.item()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.medium
def test_batches_of_one_budget_compile_once(fake_cuda, checkpointing):
    counter = CompileCounter()
    model = model_on(fake_cuda, activation_checkpointing=checkpointing)
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    batches = [batch_of(count) for count in (6, 7, 6)]
    assert len({tuple(batch.lengths) for batch in batches}) > 1
    for batch in batches:
        compiled(batch.to(fake_cuda))

    assert counter.frame_count == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_one_kernel_equals_sequence_by_sequence():
    torch.manual_seed(0)
    exact = SpeechLM(replace(CONFIG, compute_dtype="float32")).cuda()
    packed = SpeechLM(CONFIG).cuda()
    packed.load_state_dict(exact.state_dict())
    batch = batch_of(6).to("cuda")
    means = []
    for model in (exact, packed):
        mean = model(batch).loss_sum / batch.num_targets
        mean.backward()
        means.append(mean.detach())

    torch.testing.assert_close(means[1], means[0], rtol=1e-2, atol=0)
    norms = [
        torch.stack([weight.grad.norm() for weight in model.parameters() if weight.grad is not None])
        for model in (exact, packed)
    ]
    torch.testing.assert_close(norms[1], norms[0], rtol=5e-2, atol=1e-4)
