"""The learning rate as a function of the number of updates, so that a resumed run goes on exactly where it stopped."""

from __future__ import annotations

from cosyflow.config.training import SchedulerConf, TrainConf


def learning_rate(conf: TrainConf, update: int) -> float:
    """The rate of an update.

    Args:
        conf: names the scheduler and its settings.
        update: 0 for the first update of a training run, counted over all epochs.
    """
    peak = conf.optim_conf.lr
    if conf.scheduler == "warmuplr":
        return peak * _warmup_factor(conf.scheduler_conf.warmup_steps, update + 1)
    if conf.scheduler == "NoamHoldAnnealing":
        return _noam_hold_annealing(peak, conf.scheduler_conf, update)
    return peak


def _warmup_factor(warmup_steps: int, count: int) -> float:
    """Linear to 1 at `warmup_steps`, then falling with the square root (ESPnet's variant of Noam's schedule)."""
    if warmup_steps == 0:
        return float(count**-0.5)
    return float(warmup_steps**0.5 * min(count**-0.5, count * warmup_steps**-1.5))


def _noam_hold_annealing(peak: float, conf: SchedulerConf, update: int) -> float:
    """Linear warm-up, a plateau, then a power law (Squeezeformer, arXiv 2206.00888, section 4)."""
    if update <= conf.warmup_steps:
        return peak * (update + 1) / (conf.warmup_steps + 1)
    if update < conf.warmup_steps + conf.hold_steps:
        return peak
    if conf.max_steps is not None and update > conf.max_steps:
        return conf.min_lr
    rise = max(1.0, conf.warmup_steps**conf.decay_rate)
    fall = max(1.0, (update - conf.hold_steps) ** conf.decay_rate)
    return float(max(peak * rise / fall, conf.min_lr))
