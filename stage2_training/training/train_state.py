"""The progress of training."""

from dataclasses import dataclass, field


@dataclass
class TrainState:
    """A run's state besides its tensors; all but `seconds` is independent of interruptions.

    `epoch` is the one being trained and `step` the number of its finished steps; `losses` is the sum of their losses.
    `recent` and `above` belong to `divergence`. `metrics_length` is the length of metrics.jsonl in bytes.
    """

    epoch: int = 1
    step: int = 0
    losses: float = 0.0
    best_map: float = -1.0
    best_epoch: int = 0
    recent: list[float] = field(default_factory=list)
    above: int = 0
    metrics_length: int = 0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.step, self.losses = self.epoch + 1, 0, 0.0
