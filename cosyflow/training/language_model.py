"""Next-token prediction of speech: the objective of the language models of every version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch

from cosyflow.config.llm import LMConfig
from cosyflow.config.transformer import CosyVoice1LMConfig
from cosyflow.models.llm.batch import PackedBatch
from cosyflow.models.llm.loss import LMOutput
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.models.llm.transformer_lm import TransformerLM
from cosyflow.training.objective import Batch, Objective, Outcome


class TrainableLM(Protocol):
    """What training needs of a language model beyond being a module."""

    def __call__(self, batch: PackedBatch, sequence_logprob: bool = False) -> LMOutput: ...

    def training_flops(self, lengths: Sequence[int], num_targets: int) -> float: ...


def build_language_model(config: LMConfig) -> torch.nn.Module:
    """The language model of a configuration, with weights drawn from torch's generator."""
    if isinstance(config, CosyVoice1LMConfig):
        return TransformerLM(config)
    return SpeechLM(cast(Any, config))


class LanguageModelling(Objective):
    """Cross entropy of the speech tokens (and of fill and end tokens), with `acc`, the share predicted correctly.

    Args:
        model: what `build_language_model` makes.
        compiled: compile its forward and backward pass; batches must then have fixed shapes.
    """

    metrics = ("acc",)

    def __init__(self, model: torch.nn.Module, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        if compiled:
            model.compile(dynamic=False)

    def compute(self, batch: Batch) -> Outcome:
        packed = cast(PackedBatch, batch)
        output = cast(TrainableLM, self.model)(packed)
        return Outcome(output.loss_sum, packed.num_targets, {"acc": output.num_correct})

    def flops(self, batch: Batch) -> float:
        packed = cast(PackedBatch, batch)
        return cast(TrainableLM, self.model).training_flops(packed.lengths, packed.num_targets)
