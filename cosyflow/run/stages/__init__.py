"""The table of stages, in their order. Each is defined in the file of its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cosyflow.run.definition import Stage
from cosyflow.run.stages import (
    average,
    download,
    export,
    merge,
    parquet,
    prepare,
    register,
    speaker_embedding,
    speech_token,
    train,
)

STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        module.STAGE.name: module.STAGE
        for module in (
            download,
            prepare,
            speaker_embedding,
            speech_token,
            parquet,
            merge,
            train,
            average,
            export,
            register,
        )
    }
)


def position(stage: str) -> str:
    """A stage's place among all, counted from one: "4/10"."""
    return f"{list(STAGES).index(stage) + 1}/{len(STAGES)}"
