"""Adam and the limit of the gradient's norm, without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cosyflow.config.training import TrainConf

CLIP_EPSILON = 1e-6
"""Added to the norm before dividing by it, as torch.nn.utils.clip_grad_norm_ does."""


def build_optimizer(model: torch.nn.Module, conf: TrainConf) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters that are trained, in its fused form: one pass over the weights."""
    kind = torch.optim.AdamW if conf.optim == "adamw" else torch.optim.Adam
    settings = conf.optim_conf
    chosen: dict[str, Any] = {"betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = kind(weights, lr=settings.lr, fused=True, **chosen)

    def keep_chosen(loaded: torch.optim.Optimizer) -> None:
        """A loaded state brings the settings of the run that saved it; those of this run stay."""
        for group in loaded.param_groups:
            group.update(chosen)

    optimizer.register_load_state_dict_post_hook(keep_chosen)
    return optimizer


def scale_and_clip(gradients: Sequence[torch.Tensor], scale: torch.Tensor, limit: float) -> torch.Tensor:
    """Multiplies the gradients by `scale`, then limits their joint norm, without waiting for the device.

    Args:
        gradients: changed in place.
        scale: [].
        limit: largest norm after scaling.

    Returns:
        [], the joint L2 norm after scaling and before clipping.
    """
    norm = torch.nn.utils.get_total_norm(gradients) * scale
    factor = scale * (limit / (norm + CLIP_EPSILON)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), factor)
    return norm
