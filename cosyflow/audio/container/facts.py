"""What a look at a container finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class IncompleteError(Exception):
    """The file ends before its audio does; the message says by how much or why."""


@dataclass(frozen=True)
class Facts:
    """About the length of an audio file."""

    patches: Mapping[int, bytes] = field(default_factory=dict)
    """Bytes by position that a decoder must read in place of those in the file: lengths that a pipe could not know."""
    num_samples: int | None = None
    """Samples of a channel, where the decoder only guesses them."""
    is_doubtful: bool = False
    """Something follows that is no audio, or the audio is cut: only decoding its end can show which."""
    is_mpeg: bool = False
