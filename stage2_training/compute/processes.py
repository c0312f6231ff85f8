"""One run in several processes, as started by `torchrun`, and their collective operations.

A batch is split over the processes, so that together they see what one process would. Logits are gathered before the
loss, since some losses couple the images of a batch; each process computes the gradient for its own images, and the
gradients are summed (`gradient_sum`). Only process 0 reads and writes the run folder: machines need not share a disk.

A process alone needs nothing of torch here, which is therefore imported where processes talk: mistakes are reported
before torch is loaded.

Legend: n images of this process, B of all of them.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sspa.shared.errors import UserError
from sspa.shared.terminal import messages, output
from sspa.stage2_training.compute.watch import Watch, patience_s, watched

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Result = TypeVar("Result")

# While one process reads every image for its checksum, the others wait. Dead processes are torchrun's business, those
# that hang `watch`'s.
_PATIENCE = timedelta(hours=24)


class AgreedError(UserError):
    """A user's mistake that every process encounters; the first one reports it."""


@dataclass(frozen=True)
class Processes:
    """This process among `world`; by default the only one, for which these operations do nothing.

    `group` is torch's process group of these; None if they are all that there are.
    """

    rank: int = 0
    world: int = 1
    group: Any = None
    watch: Watch | None = None

    def waiting(self) -> AbstractContextManager[None]:
        """Within the block, this process waits for the others, and does not count as hanging."""
        return nullcontext() if self.watch is None else self.watch.waiting()

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
        problems = self.of_each(None if problem is None else str(problem))
        for rank, message in enumerate(problems):
            if message is not None:
                raise AgreedError(message if rank == 0 else f"process {rank}: {message}") from problem
        return result

    def first(self, action: Callable[[], Result]) -> Result:
        """Do something in process 0 only; all processes get its return value, or its UserError."""
        if self.world == 1:
            return action()
        result = self.everywhere(lambda: action() if self.rank == 0 else None)
        of_first: Any = self.of_each(result)[0]
        return of_first

    def sharing(self, folder: Path) -> "Processes":
        """Those of the processes that see the same `folder` as this one: on one machine, or on a disk that machines
        share.

        Raises:
            UserError: it cannot be written.
        """
        if self.world == 1:
            return self
        import torch

        mark = folder / f".process-{self.rank}-{secrets.token_hex(8)}"
        marks = self.of_each(self.everywhere(lambda: _touched(mark)))
        seen = tuple(rank for rank, other in enumerate(marks) if (folder / other).exists())
        all_seen = self.of_each(seen)  # after which nobody looks for a mark any more
        mark.unlink()
        own: Any = None
        # torch wants every process to create every group.
        for members in dict.fromkeys(all_seen):
            with self.waiting():
                group = torch.distributed.new_group(list(members), timeout=_PATIENCE, backend="gloo")
            own = group if members == seen else own
        return Processes(seen.index(self.rank), len(seen), own, self.watch)

    def largest(self, number: int) -> int:
        """The maximum of the processes' numbers, in all of them."""
        if self.world == 1:
            return number
        import torch

        largest = torch.tensor([number])
        with self.waiting():
            torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(largest)

    def batch(self, own: "Tensor") -> "Tensor":
        """(n, ...) of each process -> (B, ...) of all, by rank; gradients flow only to this process's own rows.

        Every process has the same number of rows.
        """
        if self.world == 1:
            return own
        import torch

        parts = [torch.empty_like(own) for _ in range(self.world)]
        with self.waiting():
            torch.distributed.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.cat(parts)

    def same_everywhere(self, module: "nn.Module") -> None:
        """Copy the parameters and buffers of process 0 to every process."""
        if self.world > 1:
            import torch

            with self.waiting():
                for value in module.state_dict().values():
                    torch.distributed.broadcast(value, 0)

    def tensors_of_first(self, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Process 0's tensors by name, on the CPU, in every process; those of the others are not looked at."""
        if self.world == 1:
            return tensors
        import torch

        # One after another: as one object each process would hold it several times.
        forms = self.first(lambda: {name: (value.shape, value.dtype) for name, value in tensors.items()})
        received = {}
        for name, (shape, dtype) in forms.items():
            value = tensors[name].contiguous() if self.rank == 0 else torch.empty(shape, dtype=dtype)
            with self.waiting():
                torch.distributed.broadcast(value, 0)
            received[name] = value
        return received

    def check_same(self, own: Any, what: str) -> None:
        """Compare something in all processes.

        Raises:
            UserError: it is not the same; `what` says what differs between which processes.
        """
        of_all = self.of_each(own)
        if others := [rank for rank, other in enumerate(of_all) if other != of_all[0]]:
            raise AgreedError(f"{what} in process {others[0]} and in process 0; give all machines the same")

    def of_each(self, own: Result) -> list[Result]:
        """The object that each process contributes, by rank."""
        if self.world == 1:
            return [own]
        import torch

        received: list[Any] = [None] * self.world
        with self.waiting():
            torch.distributed.all_gather_object(received, own, group=self.group)
        return received

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


ALONE = Processes()


@contextmanager
def processes_of_environment(device: "Callable[[], torch.device]") -> Iterator[Processes]:
    """The processes that torchrun started: NCCL between GPUs, gloo otherwise.

    Args:
        device: what this process computes on; asked for only if there are several processes.

    All but the first are silent, unless only one of them encounters a user's mistake (an image that only it reads).

    Raises:
        UserError: more processes than GPUs, or a patience (see `watch`) that is no number.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    import torch

    local_rank, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    rank, patience = int(os.environ["RANK"]), patience_s()
    kind = device().type
    if rank:
        messages.quiet = output.quiet = True
    if kind == "cuda":
        if here > torch.cuda.device_count():
            raise UserError(
                f"{here} processes on a machine with {torch.cuda.device_count()} GPU; "
                f"start torchrun with --nproc-per-node={torch.cuda.device_count()}, or take --device cpu"
            )
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    store, *_ = next(torch.distributed.rendezvous("env://", timeout=_PATIENCE))
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=_PATIENCE)
    watch = Watch(torch.distributed.PrefixStore("watch", store.clone()), rank, world, patience)
    try:
        with watched(watch, patience):
            yield Processes(rank, world, watch=watch)
    except UserError as error:
        if rank and not isinstance(error, AgreedError):
            messages.quiet = False
            raise UserError(f"process {rank}: {error}") from error
        raise
    finally:
        torch.distributed.destroy_process_group()


def _touched(file: Path) -> str:
    try:
        file.touch()
    except OSError as error:
        raise UserError(f"{file.parent}: cannot be written ({error.strerror})") from error
    return file.name
