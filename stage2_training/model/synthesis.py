"""Replacements for QSM: the ablations of the quaternion synthesis, behind the same contract.

Legend: B images, C labels, d width.
"""

import torch
from torch import Tensor, nn

from sspa.stage2_training.model.options import QsmOptions
from sspa.stage2_training.model.qsm import QuaternionSemanticModelling


class RealSynthesis(nn.Module):
    """T_uf = T_ka + a * f([T_ka; T_ca; x0]) with real layers.

    "concat": f is one linear layer 3d -> d. "mlp": 3d -> h -> d with GELU between, with h chosen to match
    the parameter count of the quaternion layers 4d -> 4d -> d (5 d^2, so h = 1.25 d).
    """

    def __init__(self, width: int, options: QsmOptions) -> None:
        super().__init__()
        self.axes = options.axes
        self.norms = nn.ModuleDict({axis: nn.LayerNorm(width) for axis in options.axes})
        inputs = len(options.axes) * width
        last = nn.Linear(inputs, width)
        if options.kind == "mlp":
            hidden = round(5 * width * width / (inputs + width))
            last = nn.Linear(hidden, width)
            self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(options.dropout), last)
        else:
            self.layers = nn.Sequential(last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual_weight = nn.Parameter(torch.tensor(options.residual_weight))

    def forward(self, t_ka: Tensor, t_ca: Tensor, x0: Tensor) -> Tensor:
        """t_ka (C, d), t_ca (B, C, d), x0 (B, d) -> T_uf (B, C, d)."""
        parts = {"T_ka": t_ka.expand_as(t_ca), "T_ca": t_ca, "x0": x0[:, None].expand_as(t_ca)}
        joined = torch.cat([self.norms[axis](parts[axis]) for axis in self.axes], dim=-1)
        return t_ka + self.residual_weight * self.layers(joined)


class SumSynthesis(nn.Module):
    """T_uf = T_ka + T_ca + x0, or those of them that `options.axes` names; no parameters."""

    def __init__(self, options: QsmOptions) -> None:
        super().__init__()
        self.axes = options.axes

    def forward(self, t_ka: Tensor, t_ca: Tensor, x0: Tensor) -> Tensor:
        """t_ka (C, d), t_ca (B, C, d), x0 (B, d) -> T_uf (B, C, d)."""
        parts = {"T_ka": t_ka, "T_ca": t_ca, "x0": x0[:, None]}
        return torch.zeros_like(t_ca) + sum(parts[axis] for axis in self.axes)


class KnowledgeOnly(nn.Module):
    """T_uf = T_ka: no synthesis."""

    def forward(self, t_ka: Tensor, t_ca: Tensor, x0: Tensor) -> Tensor:
        """t_ka (C, d), t_ca (B, C, d), x0 (B, d) -> T_uf (B, C, d)."""
        return t_ka.expand_as(t_ca)


def make_synthesis(width: int, options: QsmOptions) -> nn.Module:
    """The synthesis that `options.kind` names."""
    if options.kind == "quaternion":
        return QuaternionSemanticModelling(width, options)
    if options.kind == "sum":
        return SumSynthesis(options)
    if options.kind == "none":
        return KnowledgeOnly()
    return RealSynthesis(width, options)
