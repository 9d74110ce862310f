"""Decoding speech tokens one by one, from text that is known or that is still arriving.

A token is drawn by nucleus and top-k sampling (https://arxiv.org/abs/1904.09751) that avoids repetition (VALL-E 2,
https://arxiv.org/abs/2406.05370).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cosyflow.config.llm import SamplingConfig, SequenceLayout
from cosyflow.errors import CosyFlowError

Draw = Callable[[Tensor], int]
"""Chooses an index from float [n] weights, which need not add up to one."""


def multinomial(generator: torch.Generator | None = None) -> Draw:
    """Draws in proportion to the weights, from torch's global generator or from one's own."""

    def draw(weights: Tensor) -> int:
        return int(weights.multinomial(1, replacement=True, generator=generator))

    return draw


def greedy(weights: Tensor) -> int:
    """The largest weight: what sampling becomes without chance."""
    return int(weights.argmax())


@dataclass(frozen=True)
class Sampler:
    """Draws from the nucleus; a token that was drawn too often lately is replaced by any other."""

    config: SamplingConfig
    draw: Draw = greedy

    def __call__(self, scores: Tensor, history: Sequence[int]) -> int:
        """Draws one id.

        Args:
            scores: float [V], log-probabilities up to a constant; -inf for ids that must not come.
            history: ids drawn so far.
        """
        token = self._from_nucleus(scores.softmax(dim=0))
        recent = history[max(0, len(history) - self.config.win_size) :]
        if recent and recent.count(token) >= self.config.win_size * self.config.tau_r:
            others = scores.clone()
            others[token] = -torch.inf
            token = self.draw(others.softmax(dim=0))
        return token

    def _from_nucleus(self, probabilities: Tensor) -> int:
        ordered, ids = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(dim=0) - ordered
        size = int((before < self.config.top_p)[: self.config.top_k].sum())
        return int(ids[self.draw(ordered[:size])])


Continuation = Callable[[Tensor], Tensor]
"""Appends embeddings [n, H] to one sequence and gives the scores [V] of what follows the last of them."""


class Decodable(Protocol):
    """What decoding needs of a language model."""

    @property
    def layout(self) -> SequenceLayout: ...

    def begin(self) -> Continuation:
        """Starts an empty sequence that remembers what it is given."""
        ...

    def embed_speech(self, ids: Sequence[int]) -> Tensor:
        """[n, H] embeddings of speech tokens."""
        ...


class StreamDecodable(Decodable, Protocol):
    """What decoding from arriving text needs besides: a model whose sequences can be interleaved."""

    def embed_text(self, ids: Sequence[int]) -> Tensor:
        """[n, H] embeddings of text tokens."""
        ...

    def embed_special(self, row: int) -> Tensor:
        """[1, H], the embedding of the start or the task token."""
        ...


@torch.inference_mode()
def decode(model: Decodable, prompt: Tensor, sampler: Sampler, min_length: int, max_length: int) -> Iterator[int]:
    """Continues a prompt with speech tokens until the model ends the utterance.

    Args:
        model: a language model in evaluation mode.
        prompt: [n, H], everything before the first new token.
        sampler: draws a token from scores.
        min_length: number of tokens before which no id that ends decoding can be drawn.
        max_length: number of tokens after which decoding ends.
    """
    proceed = model.begin()
    scores = proceed(prompt).log_softmax(dim=0)
    tokens: list[int] = []
    while len(tokens) < max_length:
        if len(tokens) < min_length:
            scores[model.layout.speech_ids :] = -torch.inf
        token = sampler(scores, tokens)
        if token >= model.layout.speech_ids:
            return
        tokens.append(token)
        yield token
        if len(tokens) < max_length:
            scores = proceed(model.embed_speech([token])).log_softmax(dim=0)


@torch.inference_mode()
def decode_stream(
    model: StreamDecodable,
    text: Iterable[Sequence[int]],
    sampler: Sampler,
    max_length: int,
    *,
    instruct: Sequence[int] = (),
    prompt_text: Sequence[int] = (),
    prompt_speech: Sequence[int] = (),
) -> Iterator[int]:
    """Speaks while text arrives, in the interleaved layout: a block of speech for each block of text.

    Speech of a block begins as soon as its text is complete; the text that is left when no more comes is followed by
    the task token and by speech until the model ends the utterance.

    Args:
        model: a language model in evaluation mode.
        text: ids, piece by piece.
        sampler: draws a token from scores.
        max_length: number of new tokens after which decoding ends.
        instruct: text ids that come first and belong to no block.
        prompt_text: text ids of a recording whose voice is continued.
        prompt_speech: speech ids of that recording.

    Raises:
        CosyFlowError: the model does not interleave.
    """
    layout = model.layout
    if layout.mix_ratio is None or layout.fill is None:
        raise CosyFlowError("this language model cannot take text piece by piece; give it the whole text")
    text_part, speech_part = layout.mix_ratio
    waiting, prompt = list(prompt_text), list(prompt_speech)
    # what was drawn, fill tokens too: the sampler looks back at it
    history: list[int] = []
    produced = 0
    proceed = model.begin()
    unread = [model.embed_special(layout.sos)] + ([model.embed_text(instruct)] if instruct else [])

    for piece in text:
        waiting += piece
        while len(waiting) >= text_part:
            unread.append(model.embed_text(waiting[:text_part]))
            del waiting[:text_part]
            given, prompt = prompt[:speech_part], prompt[speech_part:]
            if given:
                unread.append(model.embed_speech(given))
            for _ in range(speech_part - len(given)):
                scores = _allow(proceed(torch.cat(unread)), layout, layout.fill)
                unread = []
                token = sampler(scores, history)
                if token == layout.fill:
                    break
                history.append(token)
                unread.append(model.embed_speech([token]))
                yield token
                produced += 1
                if produced == max_length:
                    return
            if len(given) < speech_part:
                history.append(layout.fill)

    if waiting:
        unread.append(model.embed_text(waiting))
    unread.append(model.embed_special(layout.task))
    if prompt:
        unread.append(model.embed_speech(prompt))
    while produced < max_length:
        scores = _allow(proceed(torch.cat(unread)), layout, layout.end)
        token = sampler(scores, history)
        if token == layout.end:
            return
        history.append(token)
        unread = [model.embed_speech([token])]
        yield token
        produced += 1


def _allow(scores: Tensor, layout: SequenceLayout, special: int) -> Tensor:
    """Log-probabilities [V] in which `special` is the only id that is not speech."""
    allowed = scores.log_softmax(dim=0)
    kept = allowed[special].clone()
    allowed[layout.speech_ids :] = -torch.inf
    allowed[special] = kept
    return allowed
