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
            result = filter_utterances(index, recipe.filter, recipe.sample_rate, rejected=arguments.dpo)
            setup.log(f"{data_list}: {result.describe()}")
            return narrow(result.index)

        return open_index(arguments.train_data), open_index(arguments.cv_data)

    return setup.ranks.share(open_both)


def _tokenizer_path(setup: Setup) -> str:
    arguments = setup.arguments
    path = arguments.tokenizer_path or arguments.qwen_pretrain_path or arguments.onnx_path
    if not path:
        raise CosyFlowError("no tokenizer: name its folder as --tokenizer_path or --qwen_pretrain_path")
    return path
