"""What this process last did, for those that wait for it: progress bars and messages note it."""

from dataclasses import dataclass


@dataclass
class Liveness:
    """How often this process got on with its work, and what it did last."""

    count: int = 0
    doing: str = "starting"

    def note(self, doing: str) -> None:
        """Something was done."""
        self.count += 1
        self.doing = doing


liveness = Liveness()
