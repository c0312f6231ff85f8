"""Detects divergence: a loss that is not finite, or that stays far above its recent values."""

import math
import statistics

from sspa.stage2_training.compute.processes import AgreedError
from sspa.stage2_training.config.run_config import TrainingOptions
from sspa.stage2_training.training.train_state import TrainState

# The running median covers this many of the last normal losses, once there are `_ENOUGH`.
_WINDOW, _ENOUGH = 100, 20


def what_is_wrong(loss: float, state: TrainState, options: TrainingOptions) -> str | None:
    """Record one step's loss in `state`; None if training can continue, else what is wrong, in words."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    median = statistics.median(state.recent) if len(state.recent) >= _ENOUGH else math.inf
    if loss <= options.divergence_factor * median:
        state.above = 0
        state.recent = [*state.recent[1 - _WINDOW :], loss]
        return None
    state.above += 1
    if state.above < options.divergence_steps:
        return None
    factor = f"{options.divergence_factor:g}"
    return f"the loss, {loss:.4g}, is above {factor} times its running median {median:.4g} for {state.above} steps now"


def diverged(reason: str, state: TrainState) -> AgreedError:
    """The error that stops the run; every process sees the loss of the whole batch."""
    return AgreedError(
        f"epoch {state.epoch}, step {state.step + 1}: {reason}; training stops. The run folder keeps the weights of "
        f"the best epoch so far, {state.best_epoch}. Lower training.lr or training.clip_norm, and take another --out"
    )
