"""Starts commands in processes of their own, which are killed where a test says so; see `run_driver`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def kill(where: str, count: int, number: int = signal.SIGKILL, **options: Any) -> dict[str, Any]:
    """A fault: a signal at the `count`-th call of `where` (module:attribute)."""
    return {"where": where, "count": count, "number": int(number), **options}


class Driver:
    """A process that has imported the heavy libraries, and forks for each request."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "run_driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, cache: Path, environment: dict[str, str] | None = None, **request: Any) -> list[int]:
        """Exit codes by rank; see `run_driver` for requests. What the processes print is in the file `log`."""
        request["environment"] = {"SSPA_CACHE": str(cache), **(environment or {})}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))

    def end(self) -> None:
        """Close the driver."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
