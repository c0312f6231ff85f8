"""The lines of long work in a log, by a clock of the test's own."""

import pytest

from sspa.shared import terminal
from sspa.shared.terminal import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(terminal.messages, "_force_terminal", False)
    return now


def test_what_came_before_the_first_item_does_not_slow_the_rest_down(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("asking", 12, "answers") as bar:
        clock[0] += 90  # an engine starts
        bar.advance(2, "15 tokens")
        clock[0] += 20
        bar.advance(4, "99 tokens")
        clock[0] += 30
        bar.advance(6)
    assert capsys.readouterr().err.splitlines() == [
        "asking: 2/12 answers; 15 tokens",
        "asking: 6/12 answers, 0.2 answers/s, 30 s left; 99 tokens",
        "asking: 12/12 answers, 0.1 answers/s, done",
    ]


def test_lines_come_every_ten_seconds(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("scoring", 100, "images") as bar:
        for _ in range(100):
            clock[0] += 0.5
            bar.advance()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0] == "scoring: 20/100 images, 2.0 images/s, 40 s left"
