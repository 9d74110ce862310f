"""How many processes may share out the batches of an update: told before any of them is started."""

from __future__ import annotations

import pytest

from cosyflow.config.training import TrainConf
from cosyflow.training.engine.problems import share_problems


def told(batches: int, processes: int) -> list[tuple[str, bool]]:
    problems = share_problems(TrainConf(accum_grad=batches), "train_conf", processes)
    return [(str(problem), problem.is_warning) for problem in problems]


@pytest.mark.parametrize(("batches", "processes"), [(1, 1), (4, 1), (4, 2), (4, 4), (9, 3)])
def test_what_divides_evenly_is_well(batches: int, processes: int) -> None:
    assert told(batches, processes) == []


def test_more_processes_than_batches_are_refused_with_the_numbers() -> None:
    ((text, is_warning),) = told(4, 6)
    assert text.startswith("train_conf.accum_grad: an update has 4 batches for 6 processes; give 6 or a multiple of it")
    assert not is_warning


@pytest.mark.parametrize(("batches", "processes", "waiting"), [(3, 2, 1), (8, 3, 1), (8, 5, 2)])
def test_an_uneven_share_is_a_warning(batches: int, processes: int, waiting: int) -> None:
    ((text, is_warning),) = told(batches, processes)
    assert f"of the {processes} processes {waiting} wait for the others" in text
    assert is_warning
