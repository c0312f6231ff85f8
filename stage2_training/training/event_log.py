"""Curves for TensorBoard, where `training.tensorboard` asks for them; metrics.jsonl is written anyway."""

from pathlib import Path
from typing import Protocol

from sspa.shared.errors import UserError


class EventLog(Protocol):
    """What a run tells while it trains."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """One point of a curve."""

    def close(self) -> None:
        """Write what is waiting."""


class _Nothing:
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """No curve is wanted."""

    def close(self) -> None:
        """Nothing waits."""


def check_tensorboard(wanted: bool) -> None:
    """Refuse before anything is trained.

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
    """A log in `folder`; points after `step`, of a run that was killed, are taken back."""
    if not wanted:
        return _Nothing()
    from torch.utils.tensorboard import SummaryWriter

    writer: EventLog = SummaryWriter(str(folder), purge_step=step + 1)
    return writer
