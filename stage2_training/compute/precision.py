"""What this program computes in, known without torch, which takes seconds to load."""

from typing import TYPE_CHECKING, Literal

from sspa.shared.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bf16", "fp16"]


def check_precision(precision: Precision, device: "torch.device", where: str) -> None:
    """Reject what the device does not compute in; `where` names the option in the message.

    Raises:
        UserError: fp16 without a GPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UserError(f"{where}=fp16 needs a GPU; take bf16 or float32 on a CPU")


def autocast_dtype(precision: Precision) -> "torch.dtype | None":
    """What autocast computes in; None if nothing is cast."""
    import torch

    return {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
