"""Sums gradients over the processes while the backward pass still computes others.

Gradients are sent in buckets, the last layers' first, each as soon as all of its gradients exist. Unlike those of
torch's DistributedDataParallel, the buckets stay as they are from the first step on: which numbers are added in which
order does not depend on when a run was stopped and resumed, so that resumed runs are equal in every bit.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sspa.stage2_training.compute.processes import Processes

# Bytes of a bucket: small enough that the first leaves early, large enough that latency does not count.
BUCKET_BYTES = 25_000_000


@contextmanager
def summed_gradients(
    parameters: Iterable[nn.Parameter],
    processes: Processes,
    bucket_bytes: int = BUCKET_BYTES,
    sent_in: torch.dtype | None = None,
) -> Iterator["GradientSum"]:
    """Within the block, the object that sums these parameters' gradients.

    Args:
        sent_in: what they are rounded to before they are sent, and summed in; None: what they are.
    """
    gradients = GradientSum(list(parameters), processes, bucket_bytes, sent_in)
    try:
        yield gradients
    finally:
        gradients.remove_hooks()


class GradientSum:
    """See `summed_gradients`. With one process, it does nothing.

    Use:
        with gradients.follow(): loss.backward()    # the last part of a batch, whose gradients are then whole
        gradients.wait()
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        processes: Processes,
        bucket_bytes: int,
        sent_in: torch.dtype | None,
    ) -> None:
        self._sent_in = sent_in
        self._buckets = _buckets(parameters, bucket_bytes) if processes.world > 1 else []
        self._bucket_of = {parameter: place for place, bucket in enumerate(self._buckets) for parameter in bucket}
        self._missing: list[int] = []
        self._sent: list[tuple[list[Tensor], Tensor, Any]] = []
        self._following = False
        self._hooks: list[Any] = [
            parameter.register_post_accumulate_grad_hook(self._arrived) for parameter in self._bucket_of
        ]

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Within the block, each bucket is sent once the backward pass has filled it."""
        self._missing = [len(bucket) for bucket in self._buckets]
        self._following = True
        try:
            yield
        finally:
            self._following = False

    def wait(self) -> None:
        """Send what is left, and wait until every gradient is the sum over all processes.

        Parameters without a gradient, which must be the same ones in all processes, stay without.
        """
        while len(self._sent) < len(self._buckets):
            self._send()
        for gradients, flat, work in self._sent:
            if work is not None:
                work.wait()
                sizes = [gradient.numel() for gradient in gradients]
                for gradient, summed in zip(gradients, flat.split(sizes), strict=True):
                    gradient.copy_(summed.view_as(gradient))
        self._sent = []

    def remove_hooks(self) -> None:
        """Leave the parameters as they were."""
        for hook in self._hooks:
            hook.remove()

    def _arrived(self, parameter: nn.Parameter) -> None:
        if not self._following:
            return
        self._missing[self._bucket_of[parameter]] -= 1
        # In the order of the buckets, whatever the order of their gradients: all processes send the same.
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        """Start the sum of the next bucket."""
        gradients = [each.grad for each in self._buckets[len(self._sent)] if each.grad is not None]
        if not gradients:
            self._sent.append(([], torch.empty(0), None))
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).to(self._sent_in)
        self._sent.append((gradients, flat, torch.distributed.all_reduce(flat, async_op=True)))


def _buckets(parameters: list[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """The parameters from the last to the first, which is about the order of their gradients."""
    buckets: list[list[nn.Parameter]] = []
    held = bucket_bytes
    for parameter in reversed(parameters):
        if held >= bucket_bytes:
            buckets.append([])
            held = 0
        buckets[-1].append(parameter)
        held += parameter.numel() * parameter.element_size()
    return buckets
