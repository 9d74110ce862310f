"""How the processes of a job train together: the engines that `--train_engine` chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosyflow.training.engine.base import Engine
    from cosyflow.training.ranks import Ranks


def _torch_ddp(ranks: Ranks) -> Engine:
    from cosyflow.training.engine.ddp import TorchDDP  # torch is for the processes of a training alone

    return TorchDDP(ranks)


ENGINES: Mapping[str, Callable[[Ranks], Engine]] = {"torch_ddp": _torch_ddp}
"""What makes each engine, for this process among the others."""
