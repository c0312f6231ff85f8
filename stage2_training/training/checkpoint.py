"""Checkpoints: everything that a run needs to resume as if it had never stopped.

A checkpoint is a folder `checkpoints/epoch-E-step-S` in the run folder, written atomically: tensors.safetensors has
weights, averaged weights, the optimizer's moments by parameter name, and each process's random state; state.json has
the rest and the hashes of both. S steps of epoch E are done, which determines the position in the data.
"""

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.shared.files import replacing_folder
from sspa.shared.terminal import say
from sspa.stage2_training.compute.processes import Processes
from sspa.stage2_training.compute.tensor_files import read_tensors, write_tensors
from sspa.stage2_training.training.optimization import Optimization
from sspa.stage2_training.training.train_state import TrainState

FORMAT_VERSION = 2
_KEPT = 2


class _DamagedError(Exception):
    """A checkpoint that cannot be used; the message says why."""


class CheckpointWriter:
    """Writes checkpoints to `folder` while training goes on, and keeps the newest two.

    The first process copies the state to the host, and a thread writes that copy. One checkpoint is written at a time:
    the next one waits. At the end of the block the last one is complete.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder, self._processes = folder, processes
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self.finish()

    def save(self, optimization: Optimization, state: TrainState) -> None:
        """Begin to write a checkpoint. Every process takes part.

        Raises:
            UserError: the one before could not be written, since the disk is full or the folder cannot be written to;
                earlier checkpoints are kept.
        """
        random = self._processes.of_each(_random_state())
        self._processes.first(lambda: self._begin(optimization, state, random))

    def finish(self) -> None:
        """Wait until the last checkpoint is complete. Every process takes part.

        Raises:
            UserError: it could not be written; see `save`.
        """
        self._processes.first(self._wait)

    def _begin(self, optimization: Optimization, state: TrainState, random: list[dict[str, Tensor]]) -> None:
        self._wait()
        path = self._folder / f"epoch-{state.epoch:05}-step-{state.step:08}"
        if path.is_dir():
            return  # this very state was already saved, or resumed from
        content = _content(optimization, state)
        tensors = {name: value.to("cpu", copy=True) for name, value in _tensors(optimization, random).items()}
        self._written = self._thread.submit(_write, path, content, tensors)

    def _wait(self) -> None:
        if self._written is not None:
            self._written.result()


def load_checkpoint(folder: Path, optimization: Optimization, processes: Processes) -> TrainState:
    """Restore everything from the newest intact checkpoint. The first process reads it; the others receive it.

    Newer, damaged ones are reported and removed, since training writes them again.

    Raises:
        UserError: all are damaged, or one was written by a newer version.
    """
    own: dict[str, Tensor] = {}

    def read() -> dict[str, Any]:
        state, tensors = _newest_whole(folder)
        own.update(tensors)
        return state

    state = processes.first(read)
    _restore(optimization, state, processes.tensors_of_first(own), processes)
    return TrainState(**state["state"])


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return bool(_checkpoints(folder))


def _content(optimization: Optimization, state: TrainState) -> dict[str, Any]:
    """What state.json holds, without hashes; a copy."""
    names = _names(optimization)
    return {
        "format": FORMAT_VERSION,
        "state": asdict(state),
        "optimizer_steps": optimization.step_count,
        "groups": [
            {**group, "params": [names[parameter] for parameter in group["params"]]}
            for group in optimization.optimizer.param_groups
        ],
        "scaler": optimization.scaler.state_dict(),
    }


def _write(path: Path, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    try:
        with replacing_folder(path) as beside:
            write_tensors(tensors, beside / "tensors.safetensors")
            content["tensors_hash"] = _hash_of_file(beside / "tensors.safetensors")
            content["hash"] = _hash(content)
            (beside / "state.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        for old in _checkpoints(path.parent)[_KEPT:]:
            rmtree(old)
    except (OSError, UserError) as error:
        raise UserError(f"{error}; the checkpoint before is kept: fix that, then resume with --resume") from error


def _newest_whole(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    found = _checkpoints(folder)
    damaged: list[Path] = []
    for path in found:
        try:
            content = _read(path)
        except _DamagedError as error:
            say(f"{path}: is damaged ({error}); falling back to the previous one")
            damaged.append(path)
            continue
        for newer in damaged:
            rmtree(newer)
        return content
    raise UserError(f"{folder}: has no readable checkpoint; delete that folder to train from the start")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        content = json.loads((path / "state.json").read_text(encoding="utf-8"))
        version = content["format"]
        if version > FORMAT_VERSION:
            raise UserError(f"{path}: was written by a newer sspa (format {version}, this one reads {FORMAT_VERSION})")
        if version < FORMAT_VERSION:
            raise UserError(
                f"{path}: was written by an earlier sspa (format {version}, this one reads {FORMAT_VERSION}), "
                "whose models had other parameters; train from the start, into another folder"
            )
        told = content.pop("hash")
        if told != _hash(content):
            raise _DamagedError("state.json is not what was written")
        if content["tensors_hash"] != _hash_of_file(path / "tensors.safetensors"):
            raise _DamagedError("tensors.safetensors is not what was written")
    except OSError as error:
        raise _DamagedError(f"{Path(error.filename).name}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError("state.json is not what was written") from error
    return content, read_tensors(path / "tensors.safetensors")


def _tensors(optimization: Optimization, random: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    tensors = {f"weights.{name}": value for name, value in optimization.modules.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in optimization.ema.module.state_dict().items()}
    names = _names(optimization)
    for parameter, moments in optimization.optimizer.state.items():
        tensors |= {f"optimizer.{names[parameter]}.{name}": value for name, value in moments.items()}
    for rank, state in enumerate(random):
        tensors |= {f"random.{rank}.{name}": value for name, value in state.items()}
    return tensors


def _restore(
    optimization: Optimization, content: dict[str, Any], tensors: dict[str, Tensor], processes: Processes
) -> None:
    by_part: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}, "random": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        by_part[part][rest] = value
    optimization.modules.load_state_dict(by_part["weights"])
    optimization.ema.module.load_state_dict(by_part["average"])
    _restore_optimizer(optimization, content["groups"], by_part["optimizer"])
    optimization.scaler.load_state_dict(content["scaler"])
    optimization.step_count = content["optimizer_steps"]
    _restore_random_state(by_part["random"], processes, optimization.step_count)


def _restore_random_state(saved: dict[str, Tensor], processes: Processes, step: int) -> None:
    """As saved; a run that goes on with another number of processes, or with a GPU, is not bit-identical."""
    of_each, rank = sum(name.endswith(".cpu") for name in saved), processes.rank
    if of_each != processes.world:
        # The processes must not drop the same things, and none may repeat what it drew before.
        seed = hashlib.sha256(f"{step}\0{rank}\0{processes.world}".encode()).digest()[:8]
        torch.manual_seed(int.from_bytes(seed, "little"))
        return
    torch.set_rng_state(saved[f"{rank}.cpu"])
    if torch.cuda.is_available() and f"{rank}.cuda" in saved:
        torch.cuda.set_rng_state(saved[f"{rank}.cuda"])


def _restore_optimizer(optimization: Optimization, saved: list[dict[str, Any]], moments: dict[str, Tensor]) -> None:
    """Moments and settings by parameter name: neither the order of parameters nor that of groups matters."""
    names = _names(optimization)
    groups, position, by_position = [], 0, {}
    for group in optimization.optimizer.param_groups:
        own = [names[parameter] for parameter in group["params"]]
        (same,) = [other for other in saved if other["name"] == group["name"]]
        if sorted(same["params"]) != sorted(own):
            raise UserError(
                f"the checkpoint's parameter group {group['name']!r} holds other parameters; train from the start"
            )
        groups.append({**same, "params": list(range(position, position + len(own)))})
        for place, name in enumerate(own, start=position):
            of_one = {
                key.removeprefix(f"{name}."): value for key, value in moments.items() if key.startswith(f"{name}.")
            }
            if of_one:
                by_position[place] = of_one
        position += len(own)
    optimization.optimizer.load_state_dict({"state": by_position, "param_groups": groups})


def _names(optimization: Optimization) -> dict[Tensor, str]:
    """The names of the trained parameters, which contain no dot."""
    return {parameter: name for name, parameter in optimization.trained.items()}


def _random_state() -> dict[str, Tensor]:
    """Torch's random state, the only randomness in a training step; data order and augmentation are functions of seed
    and epoch."""
    state = {"cpu": torch.get_rng_state()}
    return {**state, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else state


def _checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("epoch-*"), reverse=True)


def _hash(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
