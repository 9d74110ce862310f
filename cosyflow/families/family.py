"""The description of a model family and of its parts: plain values, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosyflow.errors import Problem, RefusalError
from cosyflow.families.released import Release

Keys = Mapping[str, tuple[str, ...]]
"""Names of settings, by the dotted key of the section of a recipe that has them."""


@dataclass(frozen=True)
class SpeechTokenizer:
    """A speech tokenizer: its file, how many codes it has, and how many tokens it makes of a second."""

    file: str
    codebook_size: int
    tokens_per_second: int


@dataclass(frozen=True)
class Part:
    """A part of a family: one model, with a section of its own in a recipe that has its name."""

    name: str
    weights: tuple[str, ...]
    """Names of its weights in a pretrained directory; the first is their name in a model directory that is made."""
    conf: str
    """The section that says how it is trained."""
    reads: tuple[str, ...]
    """Sections of a recipe that its training reads; equal ones, equal weights."""
    unread: Keys = field(default_factory=dict)
    """Settings of those sections that its training does not read."""
    for_inference: Keys = field(default_factory=dict)
    """Settings of those sections that neither its training nor its export reads, but whoever speaks with it."""
    preferences: str = ""
    """The section that its training on preferences reads; "" where it cannot be trained on them."""
    text_model: str = ""
    """Folder of the pretrained directory with a text model that it can start from; "" where there is none."""
    reads_f0: bool = False
    """Whether its training reads f0, which the shards must then have."""
    compiles: bool = False
    """Whether its batches have shapes that its training can be compiled for."""
    takes_turns: bool = False
    """Whether an update trains it in turns with another model, each by an optimizer of its own."""
    cut_by: str = ""
    """The section whose mel frames its data are cut by, where that is another part's."""


@dataclass(frozen=True)
class Family:
    """A model family."""

    name: str
    """Of its folder, and the `version` of its recipes."""
    text_tokenizer: str
    """File or folder of the text tokenizer in a pretrained directory."""
    speech_tokenizer: SpeechTokenizer
    parts: Mapping[str, Part]
    """By name, in the order in which they speak."""
    release: Release | None = None
    """The released model; None where there is none."""

    def part(self, name: str) -> Part:
        """The part of a name. Raises RefusalError when the family has none of that name."""
        if name not in self.parts:
            text = f"{name}: the family {self.name} has no such part; name one of {', '.join(self.parts)}"
            raise RefusalError([Problem("model", text)])
        return self.parts[name]
