"""The loop: it learns, it ends where it is told to, and a resumed run is the same run."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.checkpoint.state import load
from cosyflow.errors import CosyFlowError
from cosyflow.training.loop import cross_validate, train
from cosyflow.training.ranks import Ranks
from cosyflow.training.stop import StopRequest
from cosyflow.training.telemetry import Telemetry
from cosyflow.training.tracking.metrics_file import METRICS_FILE, MetricsFile
from tests.unit.training.toy import ALONE, CPU, VOCABULARY, CountingData, NextToken, conf, quiet, run, training


def test_training_lowers_the_losses() -> None:
    settings = conf(max_epoch=8)
    objective, ending = run(None, settings)
    first, last = ending.position.epochs[0], ending.position.epochs[-1]
    assert len(ending.position.epochs) == 8
    assert last["loss"] < 0.7 * first["loss"]
    assert last["cv_loss"] < 0.7 * first["cv_loss"]
    assert last["cv_acc"] > first["cv_acc"]
    assert cross_validate(objective, CountingData(ALONE), ALONE)["loss"] == pytest.approx(last["cv_loss"])


def metrics(directory: Path) -> list[dict[str, float]]:
    """The entries of a metrics file without what depends on time."""
    entries = [json.loads(line) for line in (directory / METRICS_FILE).read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in ("time", "train/tokens_per_second")} for entry in entries]


@pytest.mark.parametrize("stop_after", [5, 7, 10])
def test_the_metrics_of_a_run_in_two_parts_are_those_of_the_run_in_one(tmp_path: Path, stop_after: int) -> None:
    """Also where the run is interrupted between two entries."""
    settings = conf(log_interval=3)

    def logged(directory: Path, start: int, **options: int) -> None:
        directory.mkdir(exist_ok=True)
        sink = MetricsFile(str(directory / METRICS_FILE), start)
        run(str(directory), settings, telemetry=Telemetry(settings, ALONE, lambda text: None, sink.write), **options)

    logged(tmp_path / "whole", 0)
    logged(tmp_path / "parts", 0, max_updates=stop_after)
    logged(tmp_path / "parts", stop_after)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


class Silent(Telemetry):
    """Takes everything in and does nothing."""

    def __init__(self) -> None:
        pass

    def start(self, *args: object) -> None: ...

    def observe(self, *args: object) -> None: ...

    def log(self, *args: object) -> None: ...

    def show_progress(self, *args: object) -> None: ...

    def skip_time(self, *args: object) -> None: ...

    def end_epoch(self, *args: object) -> None: ...


@pytest.mark.medium
def test_what_is_shown_of_a_run_changes_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and states are equal to the byte, with a logger that does nothing and with one that shows everything."""
    monkeypatch.setattr("cosyflow.training.loop.time.monotonic", lambda: 0.0)  # a state holds the time that it took
    settings = conf(save_per_step=4, log_interval=3, keep_last=9)
    shown: list[object] = []
    loud = Telemetry(settings, ALONE, shown.append, lambda *entry: shown.append(entry), peak=1e6)
    for name, telemetry in (("silent", Silent()), ("loud", loud)):
        run(str(tmp_path / name), settings, telemetry=telemetry)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.pt")} for name in ("silent", "loud")]
    assert shown
    assert len(files[0]) > 4
    assert files[0] == files[1]


@pytest.mark.parametrize("stop_after", [5, 7, 11], ids=["within an epoch", "at its end", "within the second"])
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path: Path, stop_after: int) -> None:
    settings = conf(scheduler="warmuplr")  # 7 updates an epoch
    whole, whole_ending = run(str(tmp_path / "whole"), settings)
    run(str(tmp_path / "parts"), settings, max_updates=stop_after)
    resumed, resumed_ending = run(str(tmp_path / "parts"), settings)

    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    assert resumed_ending.position.epochs == whole_ending.position.epochs
    assert resumed_ending.position.update == whole_ending.position.update == 21


def test_a_finished_run_is_not_continued(tmp_path: Path) -> None:
    run(str(tmp_path), conf())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run(str(tmp_path), conf())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_last_update_of_an_epoch_takes_what_is_left() -> None:
    _, ending = run(None, conf(accum_grad=4), max_updates=4)  # 14 batches: 4, 4, 4 and 2
    assert (ending.position.epoch, ending.position.batch) == (0, 14)
    targets = sum(len(tokens) - 1 for tokens in CountingData(ALONE).sequences)
    assert ending.position.epoch_targets == targets


def test_a_stop_request_saves_and_leaves(tmp_path: Path) -> None:
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        _, ending = run(str(tmp_path), conf(), stop=stop)
    assert (ending.finished, ending.position.update) == (False, 1)
    assert list_checkpoints(str(tmp_path))[-1].name == "epoch_0_step_1"


def test_other_batches_are_refused_within_an_epoch(tmp_path: Path) -> None:
    run(str(tmp_path), conf(), max_updates=3)
    resumption = load(list_checkpoints(str(tmp_path))[-1])
    with pytest.raises(CosyFlowError, match="epoch_0_step_3: cannot go on within an epoch"):
        train(training(NextToken(), conf(), data=CountingData(ALONE, seed=5)), quiet(conf(), ALONE), None, resumption)


def test_metrics_come_at_the_log_interval_and_after_each_epoch() -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    lines: list[str] = []
    settings = conf(max_epoch=2, log_interval=3)
    telemetry = Telemetry(
        settings, ALONE, lines.append, lambda update, values: logged.append((update, dict(values))), peak=1e6
    )
    _, ending = run(None, settings, telemetry=telemetry)

    steps = [update for update, values in logged if "train/loss" in values]
    assert steps == [3, 6, 9, 12]
    assert all(math.isfinite(value) for _, values in logged for value in values.values())
    flops_per_token = 6.0 * 8 * VOCABULARY
    for values in (values for _, values in logged if "train/loss" in values):
        assert values["train/mfu"] == pytest.approx(flops_per_token * values["train/tokens_per_second"] / 1e6)
    epochs = [values for _, values in logged if "cv/loss" in values]
    assert [values["cv/loss"] for values in epochs] == [entry["cv_loss"] for entry in ending.position.epochs]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2 done", "epoch 2/2 done"]


def test_an_empty_validation_set_is_an_error() -> None:
    class NothingToValidate(CountingData):
        def validation_batches(self):  # type: ignore[no-untyped-def]
            return iter([None])

    with pytest.raises(CosyFlowError, match="validation set has no utterance left"):
        cross_validate(NextToken(), NothingToValidate(ALONE), ALONE)


def test_ranks_share_the_validation_set() -> None:
    """The sums of the ranks' shares are the sums of the whole, so one and two ranks judge alike."""
    objective = NextToken()
    whole = cross_validate(objective, CountingData(ALONE), ALONE)
    counts = sums = 0.0
    for rank in range(2):
        share = CountingData(Ranks(rank, 2, CPU))
        count = sum(len(batch.tokens) - 1 for batch in share.validation_batches() if batch)
        counts += count
        sums += cross_validate(objective, share, ALONE)["loss"] * count
    assert sums / counts == pytest.approx(whole["loss"], rel=1e-6)
