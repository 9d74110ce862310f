"""What a run shows: a line every few seconds, and metrics every `log_interval` updates. It only reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from cosyflow.checkpoint.state import Position
from cosyflow.config.training import TrainConf
from cosyflow.progress import LINE_INTERVAL_SECONDS, format_seconds
from cosyflow.training.ranks import Ranks
from cosyflow.training.reports import UpdateReport

PEAK_BFLOAT16_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
"""Dense bfloat16 operations a second by a part of the device's name (NVIDIA's data sheets); the first match counts."""

Line = Callable[[str], None]
Metrics = Callable[[int, Mapping[str, float]], None]


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 operations a second of a device; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_BFLOAT16_FLOPS.items() if part in name), None)


class Telemetry:
    """Makes lines of progress and metrics of the reports of updates.

    Args:
        conf: `max_epoch` and `accum_grad`.
        ranks: the processes whose throughput is added up.
        line: prints a line of progress; does nothing on every rank but the first.
        metrics: takes the number of the update and values by name.
        peak: operations a second of one device in the type that is computed in; None gives no MFU.
    """

    def __init__(self, conf: TrainConf, ranks: Ranks, line: Line, metrics: Metrics, peak: float | None = None) -> None:
        self.conf = conf
        self.ranks = ranks
        self.line = line
        self.metrics = metrics
        self.peak = peak
        self._interval = _Interval()
        self._last_report: UpdateReport | None = None
        self._total_tokens = 0
        self._started = self._last_line = time.monotonic()
        self._skipped = 0.0
        self._updates_at_start = 0

    def start(self, position: Position) -> None:
        """Begins to measure at a position."""
        self._updates_at_start = position.update
        self._started = self._last_line = time.monotonic()
        self._interval = _Interval()

    def observe(self, report: UpdateReport) -> None:
        """Takes in a finished update."""
        self._last_report = report
        self._total_tokens += report.num_tokens
        self._interval.add(report)

    def log(self, report: UpdateReport, means: Mapping[str, float]) -> None:
        """Makes an entry in the metrics.

        Args:
            report: of the last update.
            means: of the updates since the last entry.
        """
        interval, self._interval = self._interval, _Interval()
        seconds = max(interval.seconds(), 1e-9)
        values = {f"train/{name}": value for name, value in means.items()}
        values |= {"train/lr": report.rate, "train/grad_norm": report.grad_norm}
        values["train/tokens_per_second"] = interval.tokens / seconds
        if self.peak and interval.flops:
            values["train/mfu"] = interval.flops / seconds / (self.peak * self.ranks.world_size)
        if self.ranks.device.type == "cuda":
            values["train/memory_gib"] = torch.cuda.max_memory_allocated(self.ranks.device) / 2**30
        self.metrics(report.update + 1, values)

    def show_progress(self, position: Position, num_batches: int) -> None:
        """Prints a line if the last one is a few seconds old."""
        if self._last_report is not None and time.monotonic() - self._last_line >= LINE_INTERVAL_SECONDS:
            self._last_line = time.monotonic()
            self.line(self._describe(self._last_report, position, num_batches))

    def skip_time(self) -> None:
        """Leaves the time since the last update (cross validation, saving) out of the throughput."""
        self._skipped += self._interval.restart_clock()

    def end_epoch(self, position: Position, train: Mapping[str, float], validation: Mapping[str, float]) -> None:
        """Prints and logs the means of an epoch, at whose end the position still is."""
        self.metrics(
            position.update,
            {
                "epoch": position.epoch,
                **{f"train_epoch/{name}": value for name, value in train.items()},
                **{f"cv/{name}": value for name, value in validation.items()},
            },
        )
        shown = "  ".join(f"{name} {value:.4f}" for name, value in train.items())
        judged = "  ".join(f"cv_{name} {value:.4f}" for name, value in validation.items())
        self.line(f"epoch {position.epoch + 1}/{self.conf.max_epoch} done  {shown}  {judged}")
        self._last_line = time.monotonic()

    def tokens_per_second(self) -> float:
        """Over all ranks since the start, without the skipped time."""
        return self._total_tokens / max(time.monotonic() - self._started - self._skipped, 1e-9)

    def _describe(self, report: UpdateReport, position: Position, num_batches: int) -> str:
        """`epoch 3/20 step 12/40  loss 3.1  ...`; steps are updates of this epoch."""
        steps = -(-num_batches // self.conf.accum_grad)
        step = -(-position.batch // self.conf.accum_grad)
        elapsed = time.monotonic() - self._started
        left = steps - step + (self.conf.max_epoch - position.epoch - 1) * steps
        eta = elapsed / max(position.update - self._updates_at_start, 1) * left
        means = "  ".join(f"{name} {value:.4f}" for name, value in report.means.items())
        return (
            f"epoch {position.epoch + 1}/{self.conf.max_epoch}  step {step}/{steps}  {means}  lr {report.rate:.3g}"
            f"  {self.tokens_per_second():.0f} tokens/s  ETA {format_seconds(eta)}"
        )


class _Interval:
    """How much was computed between two log entries, and how long that took."""

    def __init__(self) -> None:
        self.tokens = 0
        self.flops = 0.0
        self._seconds = 0.0
        self._clock = time.monotonic()

    def add(self, report: UpdateReport) -> None:
        self.tokens += report.num_tokens
        self.flops += report.flops
        self.seconds()

    def seconds(self) -> float:
        """Until now, without what was skipped."""
        self._seconds += self.restart_clock()
        return self._seconds

    def restart_clock(self) -> float:
        now = time.monotonic()
        passed, self._clock = now - self._clock, now
        return passed
