"""One thin function a stage, shared by the pipeline's components: settings in, manifest out.

The work itself is in the library (cosyflow.corpus, extract, dataset, launch, release), which takes plain folders;
here it gets its place under the data root and its key (see cosyflow.stage). Every module has one function, `run`.
"""

from __future__ import annotations

from enum import Enum

from cosyflow.errors import CosyFlowError

NUMBERS = {
    "download": -1,
    "prepare": 0,
    "speaker-embedding": 1,
    "speech-token": 2,
    "parquet": 3,
    "merge": 5,
    "train": 5,
    "average": 6,
    "export": 7,
    "register": 7,
}
"""The stages in their order, each with the number that `start_stage` and `stop_stage` mean."""

SUBSET_STAGES = ("download", "prepare", "speaker-embedding", "speech-token", "parquet")
"""Stages that work on one subset at a time; the others are about all of them."""

SHARED_STAGES = ("download", "prepare", "speaker-embedding")
"""Stages whose outputs are the same for all versions of CosyVoice; the others lie below <data root>/<version>."""


class Activity(Enum):
    """What a stage does in a run over a range of stages."""

    WORKS = "works"
    HANDS_ON = "hands on what an earlier run made, which later stages need"
    IS_BEYOND = "comes after the last stage: hands on what there is, if anything"


def activity(stage: str, start_stage: int, stop_stage: int) -> Activity:
    """What a stage does when the stages from `start_stage` to `stop_stage` (see NUMBERS) are to work."""
    if start_stage > stop_stage:
        raise CosyFlowError(f"start_stage {start_stage} is above stop_stage {stop_stage}")
    if NUMBERS[stage] > stop_stage:
        return Activity.IS_BEYOND
    return Activity.WORKS if NUMBERS[stage] >= start_stage else Activity.HANDS_ON


def position(stage: str) -> str:
    """A stage's place among all, counted from one: "4/10"."""
    return f"{list(NUMBERS).index(stage) + 1}/{len(NUMBERS)}"
