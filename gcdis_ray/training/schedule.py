"""What changes in the course of a training, as pure functions of the step: a resume needs no
scheduler state."""

from __future__ import annotations

import math

from gcdis_ray.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to ``final_lr_ratio * lr``.

    Args:
        step: 0-based; the last step is ``config.steps - 1``.
    Returns:
        the rate of that step; the peak ``config.lr`` is reached at the end of the warm-up, the
        final rate at the last step.
    """
    warmup_steps = round(config.warmup * config.steps)
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    span = config.steps - 1 - warmup_steps
    share = (step - warmup_steps) / span if span > 0 else 0.0
    final = config.final_lr_ratio
    return config.lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * share)))


def linear_course(start: float, end: float, progress: float) -> float:
    """From ``start`` at progress 0 to ``end`` at 1, and as it is before and after."""
    return start + (end - start) * min(max(progress, 0.0), 1.0)
