"""Which utterances are trained on: the rules of the official data pipeline, on whole arrays, without decoding audio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosyflow.config.data import FilterConf
from cosyflow.dataset.alignment import MAX_DIFFERENCE_TOKENS
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

FRAMES_PER_SECOND = 100
LOWEST_SAMPLE_RATE = 16000  # Hz; audio below it is used only when it is what is to be synthesised


@dataclass(frozen=True)
class FilterResult:
    """The utterances that are kept, and the ids of the others by reason."""

    index: UtteranceIndex
    dropped: dict[str, list[str]]

    def describe(self) -> str:
        """One line: how many are kept, and how many are not for which reason."""
        num_dropped = sum(map(len, self.dropped.values()))
        line = f"{len(self.index)} of {len(self.index) + num_dropped} utterances are used"
        reasons = [f"{len(utts)} with {reason} (e.g. {utts[0]})" for reason, utts in self.dropped.items()]
        return f"{line}; not {', '.join(reasons)}" if reasons else line


def filter_utterances(
    index: UtteranceIndex,
    rules: FilterConf,
    sample_rate: int,
    rejected: bool = False,
    token_frame_rate: int | None = None,
) -> FilterResult:
    """Applies the rules of a recipe; all bounds are inclusive, one frame is 10 ms.

    Args:
        index: all utterances.
        rules: the recipe's `filter`.
        sample_rate: Hz of the speech to be synthesised.
        rejected: also drop what has no rejected speech tokens, or the chosen ones as rejected ones (DPO).
        token_frame_rate: speech tokens a second; also drop what has more or fewer of them than its audio is long.
    Raises:
        CosyFlowError: a shard has no speech tokens, no shard has the rejected ones, or no utterance is left.
    """
    unextracted = np.flatnonzero(index.speech_len < 0)
    if len(unextracted):
        shard = index.shards[index.shard[unextracted[0]]]
        raise CosyFlowError(f"{shard}: has no column speech_token; make it again after the stage speech-token")
    frames = index.num_samples / index.sample_rate * FRAMES_PER_SECOND
    ratio = index.text_len / frames
    too_low_rate = (index.sample_rate < LOWEST_SAMPLE_RATE) & (index.sample_rate != sample_rate)
    breaches = {
        f"more than {rules.max_length} frames": frames > rules.max_length,
        f"less than {rules.min_length} frames": frames < rules.min_length,
        f"more than {rules.token_max_length} text tokens": index.text_len > rules.token_max_length,
        f"less than {rules.token_min_length} text tokens": index.text_len < rules.token_min_length,
        "no speech tokens": index.speech_len == 0,
        f"less than {rules.min_output_input_ratio} text tokens a frame": ratio < rules.min_output_input_ratio,
        f"more than {rules.max_output_input_ratio} text tokens a frame": ratio > rules.max_output_input_ratio,
        f"audio below {LOWEST_SAMPLE_RATE} Hz": too_low_rate,
    }
    if rejected and (index.rejected_len < 0).all():
        raise CosyFlowError(f"{index.shards[0]}: has no column reject_speech_token; make it again with rejected speech")
    if rejected:
        breaches["no rejected speech tokens"] = index.rejected_len <= 0
        if index.equal_pairs is not None:
            breaches["rejected speech that is the chosen one"] = index.equal_pairs
    if token_frame_rate is not None:
        difference = np.abs(index.seconds * token_frame_rate - index.speech_len)
        breaches[f"over {MAX_DIFFERENCE_TOKENS} speech tokens more or less than their audio"] = (
            difference > MAX_DIFFERENCE_TOKENS
        )
    kept = np.ones(len(index), bool)
    dropped: dict[str, list[str]] = {}
    for reason, breach in breaches.items():
        if (kept & breach).any():
            dropped[reason] = index.utts[kept & breach].tolist()
        kept &= ~breach
    result = FilterResult(index.select(kept), dropped)
    if not kept.any():
        raise CosyFlowError(
            f"no utterance is left to train on: {result.describe()}; loosen the recipe's filter or add data"
        )
    return result
