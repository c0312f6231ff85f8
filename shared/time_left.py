"""How long the rest of long work takes, for work whose parts have bars of their own."""

import time


class TimeLeft:
    """Judged by what has been done since this was created."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def words(self, done: int, left: int) -> str:
        """ "; about 12 min left" when `done` equal parts are done and `left` are not; "" if nothing can be said."""
        if done < 1 or left < 1:
            return ""
        return f"; about {about((time.monotonic() - self._began) / done * left)} left"


def about(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h": rounded to what an estimate deserves."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
