"""Quaternion linear maps: the Hamilton product as one fused matrix product.

A quaternion vector of `n` quaternions is stored as `4 n` real channels `[r | i | j | k]`: first all
real parts, then the three imaginary parts. Source: Parcollet et al., "Quaternion Recurrent Neural
Networks", ICLR 2019.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def hamilton_matrix(r: Tensor, i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    """The real matrix of left multiplication by the quaternion weights r + i + j + k.

    Args:
        r, i, j, k: (out/4, in/4) each.

    Returns:
        (out, in): `hamilton_matrix(...) @ [x_r; x_i; x_j; x_k]` is the Hamilton product W (x) x.
    """
    return torch.cat(
        [
            torch.cat([r, -i, -j, -k], dim=1),
            torch.cat([i, r, -k, j], dim=1),
            torch.cat([j, k, r, -i], dim=1),
            torch.cat([k, -j, i, r], dim=1),
        ]
    )


def quaternion_initial_weights(
    out_quaternions: int, in_quaternions: int, criterion: str, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the four parts: modulus from a chi distribution with four degrees of freedom, a random
    unit imaginary axis, a uniform phase; scaled so that a weight's expected squared modulus is
    1 / (2 fan_in) * 4 ("he") or 1 / (2 (fan_in + fan_out)) * 4 ("glorot"), fans counted in quaternions.

    Returns:
        (4, out_quaternions, in_quaternions) in the order r, i, j, k.

    Source: Parcollet et al., ICLR 2019, section 3.3.
    """
    fan = {"he": in_quaternions, "glorot": in_quaternions + out_quaternions}[criterion]
    shape = (out_quaternions, in_quaternions)
    sigma = 1.0 / math.sqrt(2 * fan)
    modulus = sigma * torch.randn(4, *shape, generator=generator).norm(dim=0)
    axis = F.normalize(torch.randn(3, *shape, generator=generator), dim=0)
    phase = (torch.rand(shape, generator=generator) * 2 - 1) * math.pi
    return torch.cat([(modulus * phase.cos())[None], modulus * axis * phase.sin()])


class QuaternionLinear(nn.Module):
    """y = W (x) x + b with a quaternion matrix W, which has a quarter of a real layer's weights.

    Args:
        in_channels, out_channels: widths in real channels, both multiples of 4.
        criterion: "he" or "glorot".

    Shapes: (..., in_channels) -> (..., out_channels).
    """

    def __init__(self, in_channels: int, out_channels: int, criterion: str = "glorot") -> None:
        super().__init__()
        if in_channels % 4 or out_channels % 4:
            raise ValueError(f"a quaternion layer needs widths that 4 divides, not {in_channels} -> {out_channels}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(quaternion_initial_weights(out_channels // 4, in_channels // 4, criterion))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def matrix(self) -> Tensor:
        """The fused real matrix, (out_channels, in_channels)."""
        return hamilton_matrix(*self.weight.unbind())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_channels} -> {self.out_channels} real channels"
