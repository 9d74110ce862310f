"""Settings of the training loop; the field names are those of the official yaml files where they have one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Scheduler = Literal["warmuplr", "constantlr", "NoamHoldAnnealing"]
TrainingType = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class OptimConf:
    """What the optimizer is built with."""

    lr: float = 1e-5
    """Learning rate that the scheduler scales."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled with `adamw`, added to the gradient with `adam`."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr: {self.lr} is not positive")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: {self.betas} are not in [0, 1)")
        if self.eps <= 0:
            raise ValueError(f"eps: {self.eps} is not positive")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay: {self.weight_decay} is negative")


@dataclass(frozen=True, kw_only=True)
class SchedulerConf:
    """Shape of the learning rate over the updates. `constantlr` reads none of it, `warmuplr` only `warmup_steps`."""

    warmup_steps: int = 2500
    """Updates until the full learning rate is reached."""
    hold_steps: int = 0
    """NoamHoldAnnealing: updates at the full rate after the warm-up."""
    max_steps: int | None = None
    """NoamHoldAnnealing: from the update after this on the rate is `min_lr`."""
    decay_rate: float = 0.5
    """NoamHoldAnnealing: exponent of the decay; 0.5 falls with the square root, 1 with the number of updates."""
    min_lr: float = 0.0
    """NoamHoldAnnealing: the rate never falls below this after the warm-up."""

    def __post_init__(self) -> None:
        for name in ("warmup_steps", "hold_steps", "decay_rate", "min_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps: {self.max_steps} is less than 1")


@dataclass(frozen=True, kw_only=True)
class TrainConf:
    """How a model is trained. An update is one change of the weights, from `accum_grad` batches of the whole job."""

    optim: Literal["adam", "adamw"] = "adam"
    optim_conf: OptimConf = field(default_factory=OptimConf)
    scheduler: Scheduler = "constantlr"
    scheduler_conf: SchedulerConf = field(default_factory=SchedulerConf)
    max_epoch: int = 200
    """Epochs in all, those of a resumed run included."""
    grad_clip: float = 5.0
    """Largest norm of the whole gradient."""
    accum_grad: int = 8
    """Batches of an update, which all ranks share out among themselves: a multiple of their number keeps all busy."""
    tokens_per_step: int = 2000
    """Positions of one packed batch: text, speech and special tokens together."""
    frames_per_step: int = 2000
    """Mel frames of one batch, padding included; for the flow and the vocoder."""
    log_interval: int = 100
    """Updates between two entries in TensorBoard, MLflow and the metrics file."""
    save_per_step: int = -1
    """Updates between two checkpoints within an epoch; -1 saves at the end of each epoch only."""
    keep_last: int = 2
    """Number of the newest epochs that keep their weights ..."""
    keep_best: int = 5
    """... and this number of epochs with the lowest validation loss."""
    seed: int = 1986
    """Of the weights that start at random, the order of the data, the sequence layouts and dropout."""
    dtype: TrainingType = "auto"
    """Type of activations and matrix products; weights and optimizer stay float32. `auto`: bfloat16 on CUDA."""
    compile: bool = False
    """Compile the model with torch.compile (CUDA only); batches are then padded to the same shapes."""

    def __post_init__(self) -> None:
        for name in ("max_epoch", "accum_grad", "tokens_per_step", "frames_per_step", "log_interval", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is less than 1")
        if self.grad_clip <= 0:
            raise ValueError(f"grad_clip: {self.grad_clip} is not positive")
        if self.save_per_step != -1 and self.save_per_step < 1:
            raise ValueError(f"save_per_step: {self.save_per_step} is neither -1 nor a number of updates")
        if self.keep_best < 0:
            raise ValueError(f"keep_best: {self.keep_best} is negative")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: {self.seed} is not in 0..2^63-1")
        if self.scheduler == "NoamHoldAnnealing":
            if self.scheduler_conf.warmup_steps < 1:
                raise ValueError("scheduler: NoamHoldAnnealing needs scheduler_conf.warmup_steps of at least 1")
            if self.scheduler_conf.max_steps is None:
                raise ValueError("scheduler: NoamHoldAnnealing needs scheduler_conf.max_steps")


@dataclass(frozen=True, kw_only=True)
class GanTrainConf(TrainConf):
    """How the vocoder is trained against its discriminators, which have an optimizer and a schedule of their own."""

    optim_conf: OptimConf = field(default_factory=lambda: OptimConf(lr=2e-4))
    accum_grad: int = 4
    optim_d: Literal["adam", "adamw"] = "adam"
    optim_conf_d: OptimConf = field(default_factory=lambda: OptimConf(lr=2e-4))
    scheduler_d: Scheduler = "constantlr"
    scheduler_conf_d: SchedulerConf = field(default_factory=SchedulerConf)
    grad_clip_d: float = 5.0
    """Largest norm of the discriminators' gradient; `grad_clip` is that of the generator's."""
    window_frames: int = 52
    """Mel frames of the part of an utterance that is trained on at a time; shorter utterances are left out."""
    discriminator_warmup: int = 1000
    """First updates in which only the discriminators learn, when a run starts from a generator without them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grad_clip_d <= 0:
            raise ValueError(f"grad_clip_d: {self.grad_clip_d} is not positive")
        if not 1 <= self.window_frames <= self.frames_per_step:
            raise ValueError(
                f"window_frames: {self.window_frames} is not in 1..frames_per_step ({self.frames_per_step})"
            )
        if self.discriminator_warmup < 0:
            raise ValueError(f"discriminator_warmup: {self.discriminator_warmup} is negative")
        self.of_discriminators  # noqa: B018  # checks their schedule

    @property
    def of_discriminators(self) -> TrainConf:
        """The same settings for the discriminators."""
        return TrainConf(
            optim=self.optim_d,
            optim_conf=self.optim_conf_d,
            scheduler=self.scheduler_d,
            scheduler_conf=self.scheduler_conf_d,
            grad_clip=self.grad_clip_d,
        )
