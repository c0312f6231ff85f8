"""Curves for TensorBoard, if `training.tensorboard` is set; metrics.jsonl is always written."""

from pathlib import Path
from typing import Protocol

from sspa.shared.errors import UserError


class EventLog(Protocol):
    """Receives the curves of a run while it trains."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add one point to a curve."""

    def close(self) -> None:
        """Write pending points."""


class _Nothing:
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def check_tensorboard(wanted: bool) -> None:
    """Check before training starts.

    Raises:
        UserError: tensorboard is not installed.
    """
    if not wanted:
        return
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "training.tensorboard needs tensorboard: install sspa with the extra 'tensorboard', or set it to false"
        ) from None


def open_event_log(folder: Path, wanted: bool, step: int) -> EventLog:
    """A log in `folder`; points after `step`, left by a killed run, are hidden."""
    if not wanted:
        return _Nothing()
    from torch.utils.tensorboard import SummaryWriter

    writer: EventLog = SummaryWriter(str(folder), purge_step=step + 1)
    return writer
