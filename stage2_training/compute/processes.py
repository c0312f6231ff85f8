"""One run in several processes, as started by `torchrun`, and their collective operations.

A batch is split over the processes, so that together they see what one process would. Logits are gathered before the
loss, since some losses couple the images of a batch; each process computes the gradient for its own images, and the
gradients are summed.

Legend: n images of this process, B of all of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sspa.shared.errors import UserError
from sspa.shared.terminal import messages, output

Result = TypeVar("Result")

# While process 0 computes features, the others wait; detecting a dead process is left to torchrun.
_PATIENCE = timedelta(hours=24)
# Gradients are reduced in chunks of this many elements.
_PART = 16_000_000


class AgreedError(UserError):
    """A user's mistake that every process encounters; the first one reports it."""


@dataclass(frozen=True)
class Processes:
    """This process among `world`; by default the only one, for which these operations do nothing."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    def everywhere(self, action: Callable[[], Result]) -> Result:
        """Do something in every process; a UserError in one of them is raised in all, so that none waits forever."""
        if self.world == 1:
            return action()
        result: Any = None
        problem: UserError | None = None
        try:
            result = action()
        except UserError as error:
            problem = error
        problems = self._gather(None if problem is None else str(problem))
        for rank, message in enumerate(problems):
            if message is not None:
                raise AgreedError(message if rank == 0 else f"process {rank}: {message}") from problem
        return result

    def first(self, action: Callable[[], Result]) -> Result:
        """Do something in process 0 only; all processes get its return value, or its UserError."""
        if self.world == 1:
            return action()
        result = self.everywhere(lambda: action() if self.rank == 0 else None)
        return self._gather(result)[0]

    def once_per_machine(self, action: Callable[[], None]) -> None:
        """Do something in the first process of each machine, while the others wait."""
        self.everywhere(lambda: action() if self.local_rank == 0 else None)

    def largest(self, number: int) -> int:
        """The maximum of the processes' numbers, in all of them."""
        if self.world == 1:
            return number
        largest = torch.tensor([number])
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return int(largest)

    def batch(self, own: Tensor) -> Tensor:
        """(n, ...) of each process -> (B, ...) of all, by rank; gradients flow only to this process's own rows.

        Every process has the same number of rows.
        """
        if self.world == 1:
            return own
        parts = [torch.empty_like(own) for _ in range(self.world)]
        torch.distributed.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum every parameter's gradient over the processes."""
        if self.world == 1:
            return
        part: list[Tensor] = []
        held = 0
        for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
            part.append(gradient)
            held += gradient.numel()
            if held >= _PART:
                _sum(part)
                part, held = [], 0
        _sum(part)

    def same_start(self, module: nn.Module) -> None:
        """Copy the parameters and buffers of process 0 to every process."""
        if self.world > 1:
            for value in module.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def states(self, own: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The object that each process contributes, by rank."""
        return self._gather(own) if self.world > 1 else [own]

    def share_of(self, batch_size: int) -> int:
        """This process's number of images per batch.

        Raises:
            UserError: the processes do not divide the batch.
        """
        share, rest = divmod(batch_size, self.world)
        if rest:
            raise UserError(
                f"training.batch_size {batch_size} is not divisible by {self.world} processes; "
                f"take {max(share, 1) * self.world} or {(share + 1) * self.world}"
            )
        return share

    def _gather(self, own: Any) -> list[Any]:
        received: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(received, own)
        return received


ALONE = Processes()


@contextmanager
def processes_of_environment(device: torch.device) -> Iterator[Processes]:
    """The processes that torchrun started: NCCL between GPUs, gloo otherwise.

    All but the first are silent, unless only one of them encounters a user's mistake (an image that only it reads).

    Raises:
        UserError: more processes than GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    local_rank, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processes = Processes(int(os.environ["RANK"]), world, local_rank)
    if processes.rank:
        messages.quiet = output.quiet = True
    if device.type == "cuda":
        if here > torch.cuda.device_count():
            raise UserError(
                f"{here} processes on a machine with {torch.cuda.device_count()} GPU; "
                f"start torchrun with --nproc-per-node={torch.cuda.device_count()}, or take --device cpu"
            )
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield processes
    except UserError as error:
        if processes.rank and not isinstance(error, AgreedError):
            messages.quiet = False
            raise UserError(f"process {processes.rank}: {error}") from error
        raise
    finally:
        torch.distributed.destroy_process_group()


def _sum(gradients: list[Tensor]) -> None:
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))
