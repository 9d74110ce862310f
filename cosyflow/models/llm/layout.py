"""The order of text, special and speech tokens in a sequence, built for a whole batch at once.

One formula serves every version. A sequence is a head (`sos`, speaker, instruct), then `blocks` interleaved blocks of
`mix_ratio` text and speech tokens, then the remaining text, the task token and the remaining speech; `blocks` is 0 in
a sequence that is not interleaved. Each position that is followed by a speech token has that token as its target; the
last position of a block has `fill` and the last of the sequence `end`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from cosyflow.config.llm import LMConfig, SequenceLayout
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.batch import IGNORE, PADDING, SPEAKER, SPECIAL, SPEECH, TEXT, Example, PackedBatch, PackedText

_FIXED_SHARES = 4
"""With a budget, numbers that vary are rounded up to a multiple of the budget divided by this."""
_FEWEST_SEQUENCES = 8
_LEAST_LONGEST = 256

Lengths = TypeVar("Lengths", int, np.ndarray)


def sequence_length(text: Lengths, speech: Lengths, instruct: Lengths, config: LMConfig) -> Lengths:
    """Positions of a sequence, interleaved or not, from the numbers of its tokens; for one utterance or arrays."""
    specials = 2 if config.layout.speaker_dim is None else 3
    total: Lengths = text + speech + instruct + specials
    return total


def draw_bistream(utterances: Sequence[str], seed: int, epoch: int) -> np.ndarray:
    """Chooses the interleaved layout for about half of the utterances.

    The choice is a hash of seed, epoch and name: it depends neither on the order of the utterances nor on the machine.

    Returns:
        bool [len(utterances)]
    """
    digests = (hashlib.blake2b(f"{seed}:{epoch}:{name}".encode(), digest_size=1).digest() for name in utterances)
    return np.fromiter((digest[0] < 128 for digest in digests), dtype=bool, count=len(utterances))


@dataclass(frozen=True)
class _Tokens:
    """Ids of all N sequences of a batch end to end, and the length of each sequence's part."""

    names: list[str]
    text: np.ndarray
    text_length: np.ndarray
    speech: np.ndarray
    speech_length: np.ndarray
    instruct: np.ndarray
    instruct_length: np.ndarray


def build_batch(
    examples: Sequence[Example], bistream: np.ndarray, config: LMConfig, budget: int | None = None
) -> PackedBatch:
    """Packs the examples, in their order, into one batch.

    Args:
        examples: all or none have `rejected`; with it, the batch has all chosen sequences, then all rejected ones.
        bistream: bool [len(examples)], where to interleave. An utterance is interleaved only if its speech is longer
            than the mix ratio asks; a chosen and its rejected sequence are interleaved together or not at all.
        config: settings of the model.
        budget: positions T of the batch; None makes it as long as its sequences.

    Raises:
        CosyFlowError: names the utterance that is empty, too long or has an id outside the model's tables.
    """
    layout = config.layout
    tokens = _gather(examples, layout)
    length = sequence_length(tokens.text_length, tokens.speech_length, tokens.instruct_length, config)
    _check_budget(tokens.names, length, budget)

    interleaved = _interleaved(tokens, bistream, layout)
    blocks = (
        np.where(interleaved, tokens.text_length // layout.mix_ratio[0], 0)
        if layout.mix_ratio
        else np.zeros_like(length)
    )
    source, index, target = _fill_positions(tokens, length, blocks, layout)

    padding = _padding_lengths(length, budget)
    all_lengths = np.concatenate([length, padding])
    missing = int(padding.sum())
    target = np.concatenate([target, np.full(missing, IGNORE)])
    total = len(target)
    sequence = np.repeat(np.arange(len(all_lengths)), all_lengths)
    target_positions = np.flatnonzero(target != IGNORE)
    surplus = _rounded(len(target_positions), budget) - len(target_positions)
    num_targets = len(target_positions)
    target_positions = np.pad(target_positions, (0, surplus))
    targets = target[target_positions]
    targets[num_targets:] = IGNORE
    capacity = len(all_lengths) if budget is None else _power_of_two(max(len(all_lengths), _FEWEST_SEQUENCES))

    return PackedBatch(
        utterances=[example.utterance for example in examples],
        lengths=length.tolist(),
        target_counts=np.bincount(sequence[target_positions[:num_targets]], minlength=len(length)).tolist(),
        source=torch.from_numpy(np.concatenate([source, np.full(missing, PADDING)])),
        index=torch.from_numpy(np.concatenate([index, np.zeros(missing, dtype=np.int64)])),
        position=torch.from_numpy(_ranges(all_lengths)),
        sequence=torch.from_numpy(sequence),
        target=torch.from_numpy(target),
        target_positions=torch.from_numpy(target_positions),
        targets=torch.from_numpy(targets),
        target_sequence=torch.from_numpy(sequence[target_positions]),
        cu_seqlens=torch.from_numpy(_boundaries(all_lengths, capacity, total)),
        max_seqlen=_longest(length),
        embedding=_speakers(examples, capacity, layout),
        text=_packed_text(tokens, budget) if layout.encodes_text else None,
    )


def _gather(examples: Sequence[Example], layout: SequenceLayout) -> _Tokens:
    if not examples:
        raise ValueError("a batch needs at least one example")
    names = [example.utterance for example in examples]
    speech = [np.asarray(example.speech) for example in examples]
    rejected = [np.asarray(example.rejected) for example in examples if example.rejected is not None]
    if rejected and len(rejected) != len(examples):
        lacking = next(example.utterance for example in examples if example.rejected is None)
        raise CosyFlowError(f"utterance {lacking}: has no rejected speech tokens, others of its batch have")
    copies = 2 if rejected else 1
    for example in examples:
        if example.instruct is not None and not layout.takes_instruct:
            raise CosyFlowError(f"utterance {example.utterance}: has instruct tokens, which this model does not take")
    text = [np.asarray(example.text) for example in examples] * copies
    nothing = np.zeros(0, dtype=np.int64)
    instruct = [nothing if example.instruct is None else np.asarray(example.instruct) for example in examples] * copies
    names = names * copies
    return _Tokens(
        names,
        *_joined(names, text, "text", layout.text_ids),
        *_joined(names, speech + rejected, "speech", layout.speech_ids),
        *_joined(names, instruct, "instruct", layout.text_ids, may_be_empty=True),
    )


def _joined(
    names: list[str], parts: list[np.ndarray], kind: str, limit: int, may_be_empty: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The parts end to end, int64, and their lengths; refuses empty parts and ids that are not in [0, limit)."""
    lengths = np.fromiter((len(part) for part in parts), dtype=np.int64, count=len(parts))
    if not may_be_empty and not lengths.all():
        raise CosyFlowError(
            f"utterance {names[int(np.argmin(lengths))]}: its {kind} has no tokens; leave it out of the data"
        )
    flat = np.concatenate(parts).astype(np.int64, copy=False)
    wrong = np.flatnonzero((flat < 0) | (flat >= limit))
    if len(wrong):
        name = names[int(np.searchsorted(np.cumsum(lengths), wrong[0], side="right"))]
        raise CosyFlowError(
            f"utterance {name}: {kind} token {flat[wrong[0]]} is outside the model's vocabulary of {limit};"
            " was it made with another tokenizer?"
        )
    return flat, lengths


def _check_budget(names: list[str], length: np.ndarray, budget: int | None) -> None:
    if budget is None:
        return
    longest = int(np.argmax(length))
    if length[longest] > budget:
        raise CosyFlowError(
            f"utterance {names[longest]}: its {length[longest]} tokens exceed the budget of {budget} tokens a batch;"
            " raise the budget or filter it out"
        )
    if length.sum() > budget:
        raise CosyFlowError(
            f"a batch of {length.sum()} tokens exceeds the budget of {budget}, first utterance {names[0]}"
        )


def _interleaved(tokens: _Tokens, bistream: np.ndarray, layout: SequenceLayout) -> np.ndarray:
    """bool [N]: drawn, and the speech is long enough, in both sequences of a pair."""
    copies = len(tokens.names) // len(bistream)
    if layout.mix_ratio is None:
        return np.zeros(len(tokens.names), dtype=bool)
    text_part, speech_part = layout.mix_ratio
    long_enough = tokens.speech_length * text_part > tokens.text_length * speech_part
    together = long_enough.reshape(copies, -1).all(axis=0) & bistream
    return np.tile(together, copies)


def _fill_positions(
    tokens: _Tokens, length: np.ndarray, blocks: np.ndarray, layout: SequenceLayout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, index and target of every position of the N sequences, int64 [sum(length)] each."""
    text_part, speech_part = layout.mix_ratio or (1, 1)
    block = text_part + speech_part
    specials = SPECIAL if layout.special_table == "special" else SPEECH
    head = 1 if layout.speaker_dim is None else 2

    def spread(per_sequence: np.ndarray) -> np.ndarray:
        return np.repeat(per_sequence, length)

    position = _ranges(length)
    after_head = position - spread(tokens.instruct_length + head)
    in_block = (after_head >= 0) & (after_head < spread(blocks * block))
    block_number, block_offset = np.divmod(after_head, block)
    rest = after_head - spread(blocks * block)
    text_left = spread(tokens.text_length - blocks * text_part)

    is_text = (in_block & (block_offset < text_part)) | ((rest >= 0) & (rest < text_left))
    text_number = np.where(in_block, block_number * text_part + block_offset, spread(blocks * text_part) + rest)
    # of the speech token at a position; just before a run of speech it is one less than that of the run's first
    speech_number = np.where(
        in_block,
        block_number * speech_part + block_offset - text_part,
        spread(blocks * speech_part) + rest - text_left - 1,
    )
    is_task = rest == text_left
    is_speech = (in_block & (block_offset >= text_part)) | (rest > text_left)
    is_instruct = (position >= head) & (after_head < 0)

    source = np.full(len(position), specials)
    index = np.full(len(position), layout.sos)
    if layout.speaker_dim is not None:
        is_speaker = position == 1
        source[is_speaker] = SPEAKER
        index[is_speaker] = np.arange(len(length))
    index[is_task] = layout.task
    source[is_instruct] = TEXT
    index[is_instruct] = tokens.instruct
    text_start = spread(_starts(tokens.text_length))
    rows = text_start[is_text] + text_number[is_text]
    source[is_text] = TEXT
    index[is_text] = rows if layout.encodes_text else tokens.text[rows]
    speech_start = spread(_starts(tokens.speech_length))
    source[is_speech] = SPEECH
    index[is_speech] = tokens.speech[speech_start[is_speech] + speech_number[is_speech]]

    ends_block = in_block & (block_offset == block - 1)
    predicts = (in_block & (block_offset >= text_part - 1)) | is_task | is_speech
    has_next = predicts & ~ends_block & (speech_number + 1 < spread(tokens.speech_length))
    target = np.full(len(position), IGNORE)
    target[predicts] = layout.end
    if layout.fill is not None:
        target[ends_block] = layout.fill
    target[has_next] = tokens.speech[speech_start[has_next] + speech_number[has_next] + 1]
    return source, index, target


def _packed_text(tokens: _Tokens, budget: int | None) -> PackedText:
    padding = _padding_lengths(tokens.text_length, None if budget is None else _rounded(len(tokens.text), budget))
    lengths = np.concatenate([tokens.text_length, padding])
    total = int(lengths.sum())
    capacity = len(lengths) if budget is None else _power_of_two(max(len(lengths), _FEWEST_SEQUENCES))
    return PackedText(
        ids=torch.from_numpy(np.pad(tokens.text, (0, total - len(tokens.text)))),
        position=torch.from_numpy(_ranges(lengths)),
        sequence=torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)),
        cu_seqlens=torch.from_numpy(_boundaries(lengths, capacity, total)),
        max_seqlen=_longest(tokens.text_length),
        lengths=tokens.text_length.tolist(),
    )


def _speakers(examples: Sequence[Example], capacity: int, layout: SequenceLayout) -> torch.Tensor | None:
    """float32 [capacity, D], rows beyond the sequences are zero; a rejected sequence has its chosen one's speaker."""
    if layout.speaker_dim is None:
        return None
    rows = []
    for example in examples:
        if example.embedding is None or example.embedding.shape != (layout.speaker_dim,):
            found = "missing" if example.embedding is None else f"of shape {example.embedding.shape}"
            raise CosyFlowError(
                f"utterance {example.utterance}: its speaker embedding is {found}, not {layout.speaker_dim} numbers"
            )
        rows.append(example.embedding)
    copies = 1 if examples[0].rejected is None else 2
    filled = np.zeros((capacity, layout.speaker_dim), dtype=np.float32)
    filled[: copies * len(rows)] = np.tile(np.stack(rows), (copies, 1))
    return torch.from_numpy(filled)


def _longest(lengths: np.ndarray) -> int:
    """A power of two that no length exceeds: the few values that it takes mean few compiled shapes."""
    return _power_of_two(max(int(lengths.max()), _LEAST_LONGEST))


def _padding_lengths(lengths: np.ndarray, budget: int | None) -> np.ndarray:
    """Lengths of the sequences that fill a budget up, none above what counts as the longest."""
    missing = 0 if budget is None else budget - int(lengths.sum())
    full, rest = divmod(missing, _longest(lengths))
    return np.array([_longest(lengths)] * full + [rest] * (rest > 0), dtype=np.int64)


def _rounded(count: int, budget: int | None) -> int:
    if budget is None:
        return count
    step = -(-budget // _FIXED_SHARES)
    return -(-count // step) * step


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _starts(lengths: np.ndarray) -> np.ndarray:
    starts: np.ndarray = np.cumsum(lengths) - lengths
    return starts


def _ranges(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each n of `lengths`, end to end."""
    ranges: np.ndarray = np.arange(int(lengths.sum())) - np.repeat(_starts(lengths), lengths)
    return ranges


def _boundaries(lengths: np.ndarray, capacity: int, total: int) -> np.ndarray:
    """int32 [capacity + 1], cumulative lengths from 0, repeating the total."""
    boundaries = np.full(capacity + 1, total, dtype=np.int32)
    boundaries[: len(lengths)] = _starts(lengths)
    return boundaries
