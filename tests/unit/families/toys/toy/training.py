"""How the toy is trained: on counting, with data that it makes by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from cosyflow.families import facet
from cosyflow.training.parts import Part
from cosyflow.training.setup import Setup
from tests.unit.training.toy import CountingData, NextToken


def counter(setup: Setup) -> Part:
    objective = NextToken()
    torch.manual_seed(setup.conf.seed)
    objective.model = facet(setup.recipe.version, "models").BUILDERS[setup.arguments.model](setup.recipe)
    return Part(objective, CountingData(setup.ranks, per_update=setup.conf.accum_grad), objective.model)


BUILDERS: Mapping[str, Callable[[Setup], Part]] = {"counter": counter}
