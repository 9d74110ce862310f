"""The utterances of the training and the validation set, read and filtered once for all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cosyflow.errors import CosyFlowError
from cosyflow.training.setup import Setup

if TYPE_CHECKING:
    from cosyflow.dataset.utterances import UtteranceIndex


def open_indexes(
    setup: Setup, narrow: Callable[[UtteranceIndex], UtteranceIndex]
) -> tuple[UtteranceIndex, UtteranceIndex]:
    """What is left of training and validation set after the recipe's filter and `narrow`.

    The first rank reads the lists and tokenises the texts; the others get the indexes from it.
    """
    from cosyflow.dataset.filter import filter_utterances
    from cosyflow.dataset.index import build_index
    from cosyflow.text.tokenizer import build_tokenizer

    arguments, recipe = setup.arguments, setup.recipe

    def open_both() -> tuple[UtteranceIndex, UtteranceIndex]:
        tokenizer = build_tokenizer(recipe.version, _tokenizer_path(setup))

        def open_index(data_list: str) -> UtteranceIndex:
            index = build_index(data_list, tokenizer)
            result = filter_utterances(index, recipe.filter, recipe.sample_rate, arguments.dpo, recipe.token_frame_rate)
            setup.log(f"{data_list}: {result.describe()}")
            unused[data_list] = {reason: len(utts) for reason, utts in result.dropped.items()}
            return narrow(result.index)

        unused: dict[str, dict[str, int]] = {}
        train, validation = open_index(arguments.train_data), open_index(arguments.cv_data)
        shared = len(set(train.utts) & set(validation.utts))
        if shared:
            setup.log(
                f"warning: {shared} of {len(validation)} utterances to validate on are trained on too; their loss does"
                f" not show how well the model does on new speech; name another list as --cv_data"
            )
        setup.data_notes.update(
            unused_to_train=unused[arguments.train_data],
            unused_to_validate=unused[arguments.cv_data],
            validated_and_trained_on=shared,
        )
        return train, validation

    return setup.ranks.share(open_both)


def _tokenizer_path(setup: Setup) -> str:
    arguments = setup.arguments
    path = arguments.tokenizer_path or arguments.qwen_pretrain_path or arguments.onnx_path
    if not path:
        raise CosyFlowError("no tokenizer: name its folder as --tokenizer_path or --qwen_pretrain_path")
    return path
