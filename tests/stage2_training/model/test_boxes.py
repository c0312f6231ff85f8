"""DSF, QSM, GDMA and the soft aggregator against readable loops, in float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sspa.shared.errors import UserError
from sspa.stage2_training.model.dsf import DynamicSemanticFiltering, dynamic_semantic_filtering
from sspa.stage2_training.model.gdma import CrossAttention, GatedAlignment, GatedDualModalAlignments
from sspa.stage2_training.model.joint_space import JointSpace
from sspa.stage2_training.model.options import AggregatorOptions, DsfOptions, GdmaOptions, QsmOptions
from sspa.stage2_training.model.qsm import QuaternionSemanticModelling
from sspa.stage2_training.model.soft_aggregator import SoftAggregator, region_similarities
from sspa.stage2_training.model.synthesis import make_synthesis

B, M, C, D = 2, 5, 3, 8


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _softmax(values: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def _stirred(module: torch.nn.Module) -> torch.nn.Module:
    """Parts initialised to zero would hide errors."""
    with torch.no_grad():
        for index, parameter in enumerate(module.double().parameters()):
            parameter.add_(0.3 * _draw(*parameter.shape, seed=index))
    return module


def test_dsf_equals_a_loop_in_values_and_gradients() -> None:
    queries, regions = _draw(C, D).requires_grad_(), _draw(B, M, D, seed=1).requires_grad_()
    upstream = _draw(B, C, D, seed=2)

    filtered, attention = dynamic_semantic_filtering(queries, regions, torch.tensor(7.0, dtype=torch.float64))

    rows = []
    for image in range(B):
        for label in range(C):
            cosines = [
                7.0 * (queries[label] @ region) / (queries[label].norm() * region.norm()) for region in regions[image]
            ]
            weights = _softmax(cosines)
            torch.testing.assert_close(attention[image, label], torch.stack(weights))
            rows.append(sum(weight * region for weight, region in zip(weights, regions[image], strict=True)))
    slow = torch.stack(rows).unflatten(0, (B, C))
    torch.testing.assert_close(filtered, slow)
    for one, other in zip(
        torch.autograd.grad(filtered, (queries, regions), upstream, retain_graph=True),
        torch.autograd.grad(slow, (queries, regions), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_dsf_residual_adds_the_text() -> None:
    text, regions = _draw(C, D), _draw(B, M, D, seed=1)
    plain, residual = (DynamicSemanticFiltering(D, DsfOptions(residual=value)).double() for value in (False, True))

    torch.testing.assert_close(residual(text, regions)[0], plain(text, regions)[0] + text)


@pytest.mark.parametrize("axes", [("T_ka", "T_ca", "x0"), ("x0", "T_ka", "T_ca"), ("T_ka", "T_ca")])
@pytest.mark.parametrize("layers", [2, 3])
def test_qsm_equals_its_layers_on_the_written_out_quaternion(axes: tuple[str, ...], layers: int) -> None:
    qsm = _stirred(QuaternionSemanticModelling(D, QsmOptions(axes=axes, layers=layers)))
    assert isinstance(qsm, QuaternionSemanticModelling)
    t_ka, t_ca, x0 = _draw(C, D), _draw(B, C, D, seed=1), _draw(B, D, seed=2)

    found = qsm(t_ka, t_ca, x0)

    parts = {"T_ka": t_ka.expand(B, C, D), "T_ca": t_ca, "x0": x0[:, None].expand(B, C, D)}
    normed = [qsm.mapping.norms[axis](parts[axis]) for axis in axes]
    missing = [torch.zeros(B, C, D, dtype=torch.float64)] * (3 - len(axes))
    hidden = qsm.first(torch.cat([torch.zeros(B, C, D, dtype=torch.float64), *normed, *missing], dim=-1))
    for layer in [*qsm.hidden, qsm.last]:
        hidden = layer(F.gelu(hidden))
    torch.testing.assert_close(found, t_ka + qsm.residual_weight * hidden)


def test_the_mlp_in_qsms_place_has_its_parameter_budget() -> None:
    def count(kind: str) -> int:
        module = make_synthesis(128, QsmOptions(kind=kind))  # type: ignore[arg-type]
        return sum(value.numel() for value in module.parameters() if value.ndim > 1)

    # Matrices only: the three-dimensional quaternion weight and the two of the real layers.
    assert count("mlp") == pytest.approx(count("quaternion"), rel=0.01)
    assert make_synthesis(128, QsmOptions(kind="sum"))(_draw(C, D), _draw(B, C, D), _draw(B, D)).shape == (B, C, D)


def _slow_attention(module: CrossAttention, queries: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """One head, one query, one context position at a time: features (Q, d), attention (Q, K) mean over heads."""
    size = D // module.heads
    q = module.query(module.query_norm(queries))
    k, v = module.key_value(module.context_norm(context)).split(D, dim=-1)
    v = v + module.value_bias
    attention = torch.zeros(len(queries), len(context), dtype=torch.float64)
    rows = []
    for row in range(len(queries)):
        heads = []
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            weights = _softmax([q[row, part] @ key[part] / math.sqrt(size) for key in k])
            heads.append(sum(weight * value[part] for weight, value in zip(weights, v, strict=True)))
            attention[row] += torch.stack(weights).detach() / module.heads
        rows.append(torch.cat(heads))
    return module.out(torch.stack(rows)), attention


@pytest.mark.parametrize("gate", ["element", "scalar", "none"])
def test_gated_alignment_equals_a_loop(gate: str) -> None:
    module = _stirred(GatedAlignment(D, GdmaOptions(heads=2, gate=gate)))  # type: ignore[arg-type]
    assert isinstance(module, GatedAlignment)
    queries, context = _draw(B, C, D), _draw(B, M, D, seed=1)

    found = module(queries, context, explain=True)

    for image in range(B):
        taken, attention = _slow_attention(module.attention, queries[image], context[image])
        opened = torch.ones(1, dtype=torch.float64)
        if module.gate is not None:
            joined = torch.cat([queries[image], taken], dim=-1)
            opened = 1 / (1 + torch.exp(-(joined @ module.gate.weight.T + module.gate.bias)))
        torch.testing.assert_close(found.features[image], queries[image] + opened * taken)
        assert found.attention is not None
        torch.testing.assert_close(found.attention[image], attention)


def test_both_directions_of_gdma_read_what_came_in() -> None:
    gdma = _stirred(GatedDualModalAlignments(D, GdmaOptions(heads=2)))
    assert isinstance(gdma, GatedDualModalAlignments)
    text, regions = _draw(B, C, D), _draw(B, M, D, seed=1)

    t_fn, x_fn = gdma(text, regions)

    torch.testing.assert_close(t_fn.features, gdma.v_to_s[0](text, regions).features)
    torch.testing.assert_close(x_fn.features, gdma.s_to_v[0](regions, text).features)


def test_a_direction_switched_off_passes_its_side_on() -> None:
    gdma = _stirred(GatedDualModalAlignments(D, GdmaOptions(heads=2, v_to_s=False, layers=2)))
    text, regions = _draw(B, C, D), _draw(B, M, D, seed=1)

    t_fn, x_fn = gdma(text, regions)

    assert torch.equal(t_fn.features, text)
    assert not torch.allclose(x_fn.features, regions)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.gdma\.heads = 3 does not divide the width 8"):
        GatedDualModalAlignments(D, GdmaOptions(heads=3))


def test_the_aggregator_equals_one_region_at_a_time() -> None:
    regions, text = _draw(B, M, D), _draw(B, C, D, seed=1)
    similarities = region_similarities(regions, text)
    aggregator = SoftAggregator(AggregatorOptions(temperature=0.3)).double()

    scores, weights = aggregator(similarities)

    for image in range(B):
        for label in range(C):
            row = text[image, label]
            cosines = [region @ row / (region.norm() * row.norm()) for region in regions[image]]
            shares = _softmax([cosine / 0.3 for cosine in cosines])
            expected = sum(share * cosine for share, cosine in zip(shares, cosines, strict=True))
            # The temperature is kept as its logarithm in float32.
            torch.testing.assert_close(scores[image, label], expected, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(weights[image, :, label], torch.stack(shares), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("max", lambda s: s.amax(dim=1)),
        ("mean", lambda s: s.mean(dim=1)),
        ("top", lambda s: s.sort(dim=1, descending=True).values[:, :2].mean(dim=1)),
    ],
)
def test_the_aggregators_ablations(kind: str, expected: object) -> None:
    similarities = _draw(B, M, C)

    scores, weights = SoftAggregator(AggregatorOptions(kind=kind, top=2))(similarities)  # type: ignore[arg-type]

    torch.testing.assert_close(scores, expected(similarities))  # type: ignore[operator]
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(B, C, dtype=torch.float64))


def test_the_soft_aggregator_lies_between_max_and_mean() -> None:
    similarities = _draw(B, M, C)

    sharp, soft, flat = (
        SoftAggregator(AggregatorOptions(temperature=tau)).double()(similarities)[0] for tau in (1e-3, 0.5, 1e3)
    )

    torch.testing.assert_close(sharp, similarities.amax(dim=1), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(flat, similarities.mean(dim=1), atol=1e-2, rtol=1e-2)
    assert ((flat < soft) & (soft < sharp)).all()


def test_the_joint_space_is_never_widened() -> None:
    assert JointSpace(12, width=256).width == 12
    assert list(JointSpace(12, width=256).parameters()) == []


def test_the_narrowed_space_keeps_the_regions_products() -> None:
    regions = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) @ _draw(3, 12).float()
    space = JointSpace(12, width=4)

    space.start_from(regions, _draw(1, 12).float())

    narrow = space.of_image(regions[:6])
    torch.testing.assert_close(
        F.normalize(narrow, dim=-1) @ F.normalize(narrow, dim=-1).mT,
        F.normalize(regions[:6], dim=-1) @ F.normalize(regions[:6], dim=-1).mT,
        atol=1e-4,
        rtol=1e-4,
    )
    torch.testing.assert_close(narrow.square().mean(dim=-1), torch.ones(6))


def test_the_narrowed_space_keeps_what_the_label_texts_see_of_the_regions() -> None:
    """However much more energy the regions have in directions that no text points to."""
    regions = 100 * torch.randn(400, 12, generator=torch.Generator().manual_seed(0))
    texts = F.normalize(_draw(2, 12).float(), dim=-1)
    space = JointSpace(12, width=4)

    space.start_from(regions, texts)

    torch.testing.assert_close(space.image(regions) @ space.text(texts).mT, regions @ texts.mT, atol=5.0, rtol=0.05)


@torch.no_grad()
def test_weights_of_before_the_keys_lost_their_bias_give_the_same_attention() -> None:
    """Old run folders contain key_value.bias; its first half is the key bias, which softmax cancels."""
    torch.manual_seed(0)
    attention, width = CrossAttention(8, 2, 0.0), 8
    torch.nn.init.normal_(attention.out.weight)
    old = {name: value.clone() for name, value in attention.state_dict().items() if name != "value_bias"}
    old["key_value.bias"] = torch.randn(2 * width)
    queries, context = torch.randn(3, 5, width), torch.randn(3, 7, width)

    attention.load_state_dict(old)

    mha = torch.nn.MultiheadAttention(width, 2, batch_first=True)
    mha.in_proj_weight.copy_(torch.cat([old["query.weight"], old["key_value.weight"]]))
    mha.in_proj_bias.copy_(torch.cat([old["query.bias"], old["key_value.bias"]]))
    mha.out_proj.weight.copy_(old["out.weight"])
    mha.out_proj.bias.copy_(old["out.bias"])
    keys = attention.context_norm(context)
    expected, _ = mha(attention.query_norm(queries), keys, keys)
    torch.testing.assert_close(attention(queries, context)[0], expected, atol=1e-5, rtol=1e-4)
