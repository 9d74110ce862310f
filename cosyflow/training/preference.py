"""Direct preference optimisation: the objective of the language models of every version on pairs of speech."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from cosyflow.config.llm import DPOConfig
from cosyflow.models.layers.attention import RelativeAttention
from cosyflow.models.layers.basic import Dropout
from cosyflow.models.llm.batch import PackedBatch
from cosyflow.models.llm.loss import dpo_loss
from cosyflow.training.language_model import TrainableLM
from cosyflow.training.objective import Batch, Objective, Outcome

_OF_A_PAIR = ("dpo_loss", "chosen_reward", "rejected_reward", "reward_acc")


class PreferenceLearning(Objective):
    """The preference loss of the pairs and the next-token loss of the chosen speech.

    Reported, as means over the pairs: `dpo_loss`, both rewards (beta times how much likelier than under the reference
    a sequence is), `reward_acc` (the share of the pairs whose chosen sequence has the larger reward) and `margin` (how
    much larger it is), and, as the mean over the targets of the chosen sequences, `sft_loss`.

    Dropout is off. The reference has none: a policy with it would differ from an equal reference before it has learnt
    anything, and most where the reference is surest, in the chosen speech that it was trained on.

    Args:
        model: what `build_language_model` makes. Its dropout is switched off for good.
        config: settings of the loss.
    """

    metrics = ("pairs", "sft_loss", *_OF_A_PAIR)

    def __init__(self, model: torch.nn.Module, config: DPOConfig) -> None:
        super().__init__()
        self.model = _without_dropout(model)
        self.config = config

    def compute(self, batch: Batch) -> Outcome:
        packed = cast(PackedBatch, batch)
        policy = cast(TrainableLM, self.model)(packed, sequence_logprob=True).per_sequence_logprob
        if policy is None or packed.reference is None:
            raise ValueError("preferences need log-probabilities of the policy and of the reference")
        output = dpo_loss(policy, packed.reference, packed, self.config)
        sums = {
            "pairs": output.preference.new_full((), packed.num_pairs),
            "sft_loss": output.next_token.detach(),
            "dpo_loss": output.preference.detach().sum(),
            "chosen_reward": output.chosen_reward.sum(),
            "rejected_reward": output.rejected_reward.sum(),
            "reward_acc": output.num_correct,
        }
        return Outcome(output.loss_sum, packed.num_chosen_targets, sums)

    def means(self, count: float, sums: Mapping[str, float]) -> dict[str, float]:
        pairs = max(sums["pairs"], 1.0)
        of_a_pair = {name: sums[name] / pairs for name in _OF_A_PAIR}
        sft_loss = sums["sft_loss"] / max(count, 1.0)
        return {
            "loss": of_a_pair["dpo_loss"] + self.config.sft_weight * sft_loss,
            "sft_loss": sft_loss,
            **of_a_pair,
            "margin": of_a_pair["chosen_reward"] - of_a_pair["rejected_reward"],
        }

    def flops(self, batch: Batch) -> float:
        packed = cast(PackedBatch, batch)
        return cast(TrainableLM, self.model).training_flops(packed.lengths, packed.num_targets)


def _without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    for module in model.modules():
        if isinstance(module, Dropout):
            module.rate = 0.0
        elif isinstance(module, RelativeAttention):
            module.dropout_rate = 0.0
    return model
