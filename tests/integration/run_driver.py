"""Runs and commands in separate processes, killed where a test says so.

The heavy libraries are imported once; every process is a fork of that. A request is one line of JSON on standard
input, the answer one line with the exit codes. It holds `arguments` (of `sspa-train`), or a run's `config` and `out`;
and `log`, `environment`, `faults`, `file_size_limit` (which does what a full disk does). Faults are put in from here:
the program itself knows nothing of tests.
"""

import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sspa.shared.terminal import messages, run_command
from sspa.stage2_training.backbones import factory  # noqa: F401 - imported once, for all forks
from sspa.stage2_training.cli.main import app
from sspa.stage2_training.compute.processes import processes_of_environment
from sspa.stage2_training.config.resolving import validated
from sspa.stage2_training.report import page  # noqa: F401
from sspa.stage2_training.training import run as run_module
from sspa.stage2_training.training import trainer


def main() -> None:
    """Answer requests until standard input ends."""
    gc.freeze()  # A collection in a fork would touch, and so copy, everything that was imported here.
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        world = request.get("world", 1)
        children = [_start(request, rank, world, port) for rank in range(world)]
        codes = _ends(children)
        print(json.dumps(codes), flush=True)


def _ends(children: list[int]) -> list[int]:
    """Exit codes; a process that a fault has stopped is killed once the others have ended, as torchrun does."""
    statuses = {child: os.waitpid(child, os.WUNTRACED)[1] for child in children}
    for child, status in statuses.items():
        if os.WIFSTOPPED(status):
            os.kill(child, signal.SIGKILL)
            statuses[child] = os.waitpid(child, 0)[1]
    return [os.waitstatus_to_exitcode(statuses[child]) for child in children]


def _start(request: dict[str, Any], rank: int, world: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    log = os.open(request["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdin.close()
    if world > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
    code = 1
    try:
        torch.set_num_threads(1)
        os.environ.update(request.get("environment", {}))
        for fault in request.get("faults", ()):
            if fault.pop("rank", 0) == rank:
                _put_in(**fault)
        if request.get("keep_checkpoints", True):
            trainer.rmtree = lambda path: None  # type: ignore[assignment]
        if rank and request.get("own_disks"):
            _forbid(request["out"])
        if rank and "config_of_others" in request:
            request["config"] = request["config_of_others"]
        run_command(lambda: _run(request))
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        messages.file.flush()
        os._exit(code)


def _run(request: dict[str, Any]) -> None:
    if limit := request.get("file_size_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if arguments := request.get("arguments"):
        sys.argv = ["sspa-train", *arguments]
        app()
    cpu = torch.device("cpu")
    with processes_of_environment(lambda: cpu) as processes:
        config = validated(request["config"])
        run_module.run(config, Path(request["out"]), cpu, request.get("resume", False), processes)


def _forbid(folder: str) -> None:
    """End this process as soon as it touches the folder, as if that were on the disk of another machine."""

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        uses = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if event in uses and str(arguments[0]).startswith(folder):
            os.write(2, f"touched {arguments[0]}\n".encode())
            os._exit(77)

    sys.addaudithook(look)


def _put_in(where: str, count: int, number: int, half: bool = False) -> None:
    """Send this process a signal once `where` (module:attribute) has been called `count` times.

    With `half`, `where` writes a file (its second argument), of which half is taken away first.
    """
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def faulty(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        result = real(*arguments, **options)
        calls += 1
        if calls == count:
            if half:
                os.truncate(arguments[1], Path(arguments[1]).stat().st_size // 2)
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, faulty)


if __name__ == "__main__":
    main()
