"""The batch builder against the layout told token by token, and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig, Qwen2Config
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.batch import IGNORE, PADDING, SPECIAL, SPEECH, TEXT, Example
from cosyflow.models.llm.layout import build_batch, draw_bistream, sequence_length

SIZE = 40
QWEN2 = Qwen2Config(vocab_size=90, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
V2 = CosyVoice2LMConfig(qwen2=QWEN2, speech_token_size=SIZE, mix_ratio=(2, 3))
V3 = CosyVoice3LMConfig(qwen2=QWEN2, speech_token_size=SIZE, mix_ratio=(2, 3))


def ids(limit: int, smallest: int = 1, largest: int = 20):
    return st.lists(st.integers(0, limit - 1), min_size=smallest, max_size=largest).map(np.array)


def examples(with_instruct: bool = False, with_rejected: bool = False):
    return st.lists(
        st.builds(
            Example,
            utterance=st.uuids().map(str),
            text=ids(90),
            speech=ids(SIZE, largest=60),
            instruct=ids(90, largest=4) if with_instruct else st.none(),
            rejected=ids(SIZE, largest=60) if with_rejected else st.none(),
        ),
        min_size=1,
        max_size=6,
    )


def spelled_out(text, speech, instruct, interleave, config):
    """One sequence, token by token, as (source, index, target)."""
    layout = config.layout
    specials = SPECIAL if layout.special_table == "special" else SPEECH
    text, speech = list(text), list(speech)
    tokens = [(specials, layout.sos, IGNORE)] + [(TEXT, token, IGNORE) for token in instruct]
    while interleave and len(text) >= 2:
        block, text = text[:2], text[2:]
        tokens += [(TEXT, block[0], IGNORE), (TEXT, block[1], speech[0])]
        for position in range(3):
            target = speech[position + 1] if position < 2 else layout.fill
            tokens.append((SPEECH, speech[position], target))
        speech = speech[3:]
    tokens += [(TEXT, token, IGNORE) for token in text]
    inputs = [(specials, layout.task)] + [(SPEECH, token) for token in speech]
    return tokens + [(*pair, target) for pair, target in zip(inputs, [*speech, layout.end], strict=True)]


@given(data=st.data(), config=st.sampled_from([V2, V3]), padded=st.booleans())
def test_every_sequence_is_as_spelled_out(data, config, padded):
    batch_examples = data.draw(examples(with_instruct=config is V3))
    bistream = np.array(data.draw(st.lists(st.booleans(), min_size=len(batch_examples), max_size=len(batch_examples))))
    batch = build_batch(batch_examples, bistream, config, budget=1000 if padded else None)

    starts = batch.cu_seqlens.tolist()
    for number, example in enumerate(batch_examples):
        interleave = bistream[number] and len(example.speech) / len(example.text) > 3 / 2
        instruct = [] if example.instruct is None else example.instruct
        expected = spelled_out(example.text, example.speech, instruct, interleave, config)
        part = slice(starts[number], starts[number + 1])
        found = zip(batch.source[part].tolist(), batch.index[part].tolist(), batch.target[part].tolist(), strict=True)
        assert list(found) == expected
        assert batch.position[part].tolist() == list(range(len(expected)))
        assert sequence_length(len(example.text), len(example.speech), len(instruct), config) == len(expected)


@given(batch_examples=examples(), budget=st.integers(500, 700))
def test_a_budget_fixes_the_shapes(batch_examples, budget):
    batch = build_batch(batch_examples, np.ones(len(batch_examples), dtype=bool), V2, budget)

    real = batch.num_tokens
    assert len(batch.source) == len(batch.target) == budget == batch.cu_seqlens[-1]
    assert (batch.source[real:] == PADDING).all()
    assert (batch.target[real:] == IGNORE).all()
    assert batch.cu_seqlens.diff().max() <= batch.max_seqlen
    assert len(batch.cu_seqlens) - 1 in {8, 16}
    assert (batch.targets != IGNORE).sum() == batch.num_targets == (batch.target != IGNORE).sum()
    kept = batch.targets != IGNORE
    assert (batch.target[batch.target_positions[kept]] == batch.targets[kept]).all()
    assert len(batch.targets) <= budget + 4


@given(batch_examples=examples(with_rejected=True))
def test_chosen_and_rejected_share_one_layout(batch_examples):
    count = len(batch_examples)
    batch = build_batch(batch_examples, np.ones(count, dtype=bool), V2)

    fills = (batch.target == V2.layout.fill).int()
    per_sequence = [int(fills[batch.sequence == number].sum()) for number in range(2 * count)]
    assert batch.num_sequences == 2 * count
    assert per_sequence[:count] == per_sequence[count:]


def test_the_draw_depends_on_seed_epoch_and_name_only():
    names = [f"1272_128104_{number:06d}" for number in range(2000)]
    draw = draw_bistream(names, seed=1, epoch=0)

    assert 900 < draw.sum() < 1100
    assert (draw_bistream(names[::-1], seed=1, epoch=0)[::-1] == draw).all()
    assert (draw_bistream(names, seed=1, epoch=1) != draw).any()
    assert (draw_bistream(names, seed=2, epoch=0) != draw).any()


GOOD = Example("good", np.array([1, 2]), np.array([3, 4, 5]))


@pytest.mark.parametrize(
    ("bad", "budget", "message"),
    [
        (Example("bad", np.array([], dtype=int), np.array([1])), None, "utterance bad: its text has no tokens"),
        (Example("bad", np.array([1]), np.array([], dtype=int)), None, "utterance bad: its speech has no tokens"),
        (Example("bad", np.array([90]), np.array([1])), None, "utterance bad: text token 90 is outside .* of 90"),
        (
            Example("bad", np.array([1]), np.array([2, SIZE])),
            None,
            "utterance bad: speech token 40 is outside .* of 40",
        ),
        (Example("bad", np.array([1]), np.array([-1])), None, "utterance bad: speech token -1 is outside"),
        (Example("bad", np.array([1]), np.arange(30)), 20, "utterance bad: its 33 tokens exceed the budget of 20"),
        (Example("bad", np.array([1]), np.arange(12)), 20, "a batch of 22 tokens exceeds the budget of 20"),
        (Example("bad", np.array([1]), np.array([1]), instruct=np.array([1])), None, "utterance bad: has instruct"),
        (Example("bad", np.array([1]), np.array([1]), rejected=np.array([1])), None, "utterance good: has no rejected"),
    ],
)
def test_bad_utterances_are_named(bad, budget, message):
    with pytest.raises(CosyFlowError, match=message):
        build_batch([GOOD, bad], np.zeros(2, dtype=bool), V2, budget)
