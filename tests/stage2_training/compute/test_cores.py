"""How many cores a process takes to be its own."""

import os
from pathlib import Path

import pytest

from sspa.stage2_training.compute import cores


@pytest.mark.parametrize(
    ("quota", "processes", "expected"),
    [
        (None, 1, 8),
        ("max 100000\n", 1, 8),
        ("300000 100000\n", 1, 3),
        ("1600000 100000\n", 1, 8),
        ("50000 100000\n", 1, 1),
        ("something else\nentirely", 1, 8),
        ("400000 100000\n", 2, 2),
        ("400000 100000\n", 16, 1),
    ],
)
def test_a_process_has_its_share_of_what_it_may_use(
    quota: str | None, processes: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota)
    cores.share_cores(processes)
    assert cores.own_cores() == expected
