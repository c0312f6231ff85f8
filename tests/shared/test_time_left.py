"""The words about the time left, by a clock of the test's own."""

import pytest

from sspa.shared import time_left
from sspa.shared.time_left import TimeLeft, about


def test_the_rest_takes_as_long_as_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time_left.time, "monotonic", lambda: now[0])
    pace = TimeLeft()
    now[0] += 60
    assert pace.words(3, 2) == "; about 40 s left"
    assert pace.words(1, 100) == "; about 1.7 h left"
    assert pace.words(0, 5) == pace.words(5, 0) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_an_estimate_is_rounded(seconds: float, words: str) -> None:
    assert about(seconds) == words
