"""GDMA, gated dual-modal alignments: text and image each attend to the other, through a gate.

Legend: B images, M regions, C labels, d width of the joint space, H heads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sspa.shared.errors import UserError
from sspa.stage2_training.model.options import GdmaOptions


class Alignment(NamedTuple):
    """The result of one gated direction: the aligned features (B, Q, d) and, for explanations, the
    attention (B, Q, K), mean over heads, and the gate (B, Q, d or 1), each None unless requested."""

    features: Tensor
    attention: Tensor | None
    gate: Tensor | None


class CrossAttention(nn.Module):
    """Multi-head attention of LN(queries) over LN(context).

    Shapes: queries (B, Q, d), context (B, K, d) -> (B, Q, d); attention (B, Q, K) if requested.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"model.gdma.heads = {heads} does not divide the width {width}; choose a divisor")
        self.heads, self.dropout = heads, dropout
        self.query_norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        # A key bias adds the same to all scores of a query, which softmax cancels: its gradient would be
        # rounding noise, which Adam turns into full steps. Only the values' half of the bias is kept.
        self.value_bias = nn.Parameter(self.key_value.bias.detach()[width:].clone())
        self.key_value.register_parameter("bias", None)
        self.register_load_state_dict_pre_hook(_without_key_bias)
        self.out = nn.Linear(width, width)
        # Untrained, alignment is the identity, so that the model equals zero-shot.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, context: Tensor, explain: bool = False) -> tuple[Tensor, Tensor | None]:
        def by_head(x: Tensor) -> Tensor:  # (B, N, d) -> (B, H, N, d/H)
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q = by_head(self.query(self.query_norm(queries)))
        bias = F.pad(self.value_bias, (len(self.value_bias), 0))
        keys_values = F.linear(self.context_norm(context), self.key_value.weight, bias)
        k, v = (by_head(x) for x in keys_values.chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        attention = None
        if explain:  # the fused kernel does not return its weights
            attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1).mean(dim=1)
        return self.out(mixed.transpose(1, 2).flatten(2)), attention


def _without_key_bias(module: CrossAttention, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Load weights from before the key bias was removed; the function they compute is the same."""
    if (bias := state.pop(f"{prefix}key_value.bias", None)) is not None:
        state[f"{prefix}value_bias"] = bias.chunk(2)[1]


class GatedAlignment(nn.Module):
    """y = q + G * A with A = attention of q over the context and G = sigmoid([q; A] W + b).

    The gate removes the cross-modal information that the query does not need; its form is a
    reconstruction: "element" (one value per channel), "scalar" (one per query) or "none".

    Shapes: queries (B, Q, d), context (B, K, d) -> `Alignment`.
    """

    def __init__(self, width: int, options: GdmaOptions) -> None:
        super().__init__()
        self.attention = CrossAttention(width, options.heads, options.dropout)
        values = {"element": width, "scalar": 1, "none": 0}[options.gate]
        self.gate = nn.Linear(2 * width, values) if values else None

    def forward(self, queries: Tensor, context: Tensor, explain: bool = False) -> Alignment:
        taken, attention = self.attention(queries, context, explain)
        if self.gate is None:
            return Alignment(queries + taken, attention, None)
        gate = self.gate(torch.cat([queries, taken], dim=-1)).sigmoid()
        return Alignment(queries + gate * taken, attention, gate if explain else None)


class GatedDualModalAlignments(nn.Module):
    """Both directions in parallel, each reading the same T_uf and X.

    V-to-S: T_fn (B, C, d), labels attend to regions. S-to-V: X_fn (B, M, d), regions attend to labels.
    A direction that is switched off passes its features through unchanged. More than one layer stacks
    the pair (reconstruction; the default is one).
    """

    def __init__(self, width: int, options: GdmaOptions) -> None:
        super().__init__()

        def direction(wanted: bool) -> nn.ModuleList:
            return nn.ModuleList(GatedAlignment(width, options) for _ in range(options.layers if wanted else 0))

        self.layers = options.layers
        self.v_to_s, self.s_to_v = direction(options.v_to_s), direction(options.s_to_v)

    def forward(self, t_uf: Tensor, regions: Tensor, explain: bool = False) -> tuple[Alignment, Alignment]:
        """t_uf (B, C, d), regions (B, M, d) -> the V-to-S and the S-to-V alignment, of the last layer."""
        text, image = Alignment(t_uf, None, None), Alignment(regions, None, None)
        for layer in range(self.layers):
            before_text, before_image = text.features, image.features
            if self.v_to_s:
                text = self.v_to_s[layer](before_text, before_image, explain)
            if self.s_to_v:
                image = self.s_to_v[layer](before_image, before_text, explain)
        return text, image
