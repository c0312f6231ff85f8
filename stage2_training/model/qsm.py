"""QSM, quaternion semantic modelling: two text views and the image synthesized into one feature per label.

Legend: B images, C labels, d width of the joint space.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.stage2_training.model.options import QsmOptions
from sspa.stage2_training.model.quaternion import QuaternionLinear


class QuaternionMapping(nn.Module):
    """Q = 0 + T_ka i + T_ca j + x0 k, one quaternion per channel; each part is LayerNormed first
    (reconstruction), and the axes' order is an option (reconstruction).

    Returned as the three imaginary parts in axis order, each broadcastable to (B, C, d): the real
    part is zero and x0 is the same for every label, so neither is ever materialised.
    """

    def __init__(self, width: int, axes: tuple[str, ...]) -> None:
        super().__init__()
        self.axes = axes
        self.norms = nn.ModuleDict({axis: nn.LayerNorm(width) for axis in axes})

    def forward(self, t_ka: Tensor, t_ca: Tensor, x0: Tensor) -> list[Tensor]:
        """t_ka (C, d), t_ca (B, C, d), x0 (B, d) -> parts of (1, C, d), (B, C, d) and (B, 1, d)."""
        parts = {"T_ka": t_ka[None], "T_ca": t_ca, "x0": x0[:, None]}
        return [self.norms[axis](parts[axis]) for axis in self.axes]


class QuaternionSemanticModelling(nn.Module):
    """T_ka, T_ca, x0 -> T_uf = T_ka + a * layers(Q), (B, C, d).

    Two quaternion linear layers by default, 4d -> 4d -> d with GELU between, and a learnable weight
    `a` on the synthesized part (reconstruction). The last layer starts at zero, so that the untrained
    model uses the knowledge-aware text unchanged and equals zero-shot.
    """

    def __init__(self, width: int, options: QsmOptions) -> None:
        super().__init__()
        self.width = width
        self.mapping = QuaternionMapping(width, options.axes)
        self.first = QuaternionLinear(4 * width, 4 * width)
        self.hidden = nn.ModuleList(QuaternionLinear(4 * width, 4 * width) for _ in range(options.layers - 2))
        self.last = QuaternionLinear(4 * width, width)
        nn.init.zeros_(self.last.weight)
        self.dropout = nn.Dropout(options.dropout)
        self.residual_weight = nn.Parameter(torch.tensor(options.residual_weight))

    def forward(self, t_ka: Tensor, t_ca: Tensor, x0: Tensor) -> Tensor:
        """t_ka (C, d), t_ca (B, C, d), x0 (B, d) -> T_uf (B, C, d)."""
        parts = self.mapping(t_ka, t_ca, x0)
        # The first layer's fused matrix is split by columns into one block per axis, without the block
        # of the real part (zero): T_ka is multiplied once per label and x0 once per image instead of
        # both once per pair, a quarter of the work for the same sum.
        blocks = self.first.matrix().split(self.width, dim=1)[1:]
        hidden = self.first.bias + sum(
            F.linear(part, block) for part, block in zip(parts, blocks, strict=False)
        )  # (B, C, 4d)
        for layer in self.hidden:
            hidden = layer(self.dropout(F.gelu(hidden)))
        return t_ka + self.residual_weight * self.last(self.dropout(F.gelu(hidden)))
