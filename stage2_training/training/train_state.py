"""Where training stands."""

from dataclasses import dataclass, field


@dataclass
class TrainState:
    """What a run knows besides its tensors; all but `seconds` is the same however often the run was interrupted.

    `epoch` is the one being trained and `step` how many of its steps are done; `losses` is the sum of their losses.
    `recent` and `above` are what `divergence` keeps in mind. `metrics_length` is that of metrics.jsonl in bytes.
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
        """Stand at the start of the epoch that follows."""
        self.epoch, self.step, self.losses = self.epoch + 1, 0, 0.0
