"""How many speakers several subsets have: who speaks in two of them counts once."""

from __future__ import annotations

from collections.abc import Sequence

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.stage import Manifest

_LISTED_IN = {"prepare": "spk2utt", "speaker-embedding": "speakers"}
"""A file with a line for each speaker, which begins with the name, by stage."""


def distinct_speakers(manifests: Sequence[Manifest]) -> int | None:
    """The speakers of all subsets together; None when that is not known, as of files that were deleted since."""
    if len(manifests) == 1:
        return manifests[0].counts.get("speakers")
    names: set[str] = set()
    for manifest in manifests:
        file = _LISTED_IN.get(manifest.stage)
        if file is None:
            return None
        try:
            lines = storage.read_text(storage.join(manifest.uri, file)).split("\n")
        except CosyFlowError:
            return None
        names.update(line.split(" ", 1)[0] for line in lines if line)
    return len(names)
