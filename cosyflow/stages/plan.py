"""Before the first stage: refuses what cannot work, and names the subsets."""

from __future__ import annotations

from collections.abc import Sequence

from cosyflow.errors import CosyFlowError
from cosyflow.pretrained import SPEAKER_MODEL, SPEECH_TOKENIZERS, locate
from cosyflow.stages import NUMBERS, Activity, activity
from cosyflow.stages.recipe import load_recipe, resolve_subsets


def run(
    recipe: str,
    overrides: Sequence[str],
    train_subsets: Sequence[str],
    dev_subsets: Sequence[str],
    test_subsets: Sequence[str],
    pretrained_dir: str,
    start_stage: int,
    stop_stage: int,
) -> list[str]:
    """Checks recipe, stages, subsets and pretrained models. Returns all subsets, those for training first.

    Raises:
        CosyFlowError: something of it is wrong; the message names it.
    """
    first, last = min(NUMBERS.values()), max(NUMBERS.values())
    if not first <= start_stage <= stop_stage <= last:
        raise CosyFlowError(
            f"stages {start_stage} to {stop_stage}: give a range within {first} ({next(iter(NUMBERS))}) to {last}"
        )
    settings = load_recipe(recipe, overrides)
    needed = {"speaker-embedding": SPEAKER_MODEL, "speech-token": SPEECH_TOKENIZERS[settings.version].file}
    for stage, model in needed.items():
        if activity(stage, start_stage, stop_stage) is Activity.WORKS:
            locate(pretrained_dir, model)
    return resolve_subsets(settings, train_subsets, dev_subsets, test_subsets).every
