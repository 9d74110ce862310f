"""The kinds of objects that a cluster can run a training as, by the names that the option `launcher` has for them."""

from __future__ import annotations

from collections.abc import Mapping

from cosyflow.launch.kinds.kind import JobKind
from cosyflow.launch.kinds.pytorchjob import PyTorchJob

KINDS: Mapping[str, JobKind] = {"pytorchjob": PyTorchJob()}
"""The first is what `auto` takes in a pod."""
