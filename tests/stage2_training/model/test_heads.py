"""Properties of every head: shapes, gradients, independence of labels and of images."""

import pytest
import torch

from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures
from sspa.stage2_training.model.baselines.options import (
    CsraOptions,
    DualCoOpOptions,
    LinearProbeOptions,
    MlDecoderOptions,
    Query2LabelOptions,
    TipAdapterOptions,
    ZeroShotOptions,
)
from sspa.stage2_training.model.contract import Head
from sspa.stage2_training.model.heads import create_head, reads_regions
from sspa.stage2_training.model.options import Options, QsmOptions, SspaOptions

from .small_models import LABELS, small_backbone, some_features, some_knowledge, some_targets

HEADS: dict[str, Options] = {
    "sspa": SspaOptions(),
    "sspa-narrow": SspaOptions(width=32),
    "sspa-knowledge": SspaOptions(width=32, knowledge_branch=True),
    "sspa-concat": SspaOptions(qsm=QsmOptions(kind="concat"), global_branch=False),
    "zero-shot": ZeroShotOptions(),
    "tip-adapter": TipAdapterOptions(images=40),
    "linear": LinearProbeOptions(),
    "csra": CsraOptions(heads=4),
    "ml-decoder": MlDecoderOptions(width=32, groups=2, heads=4, hidden=16),
    "query2label": Query2LabelOptions(width=16),
    "dualcoop": DualCoOpOptions(context=3),
    "dualcoop-shared": DualCoOpOptions(context=3, class_specific=False, adapter=True),
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return small_backbone(tmp_path_factory.mktemp("backbone"))


def _head(name: str, backbone: Backbone) -> Head:
    torch.manual_seed(0)
    head = create_head(HEADS[name], backbone.width)
    head.bind(backbone, some_knowledge())
    head.initialise(some_features(32), some_targets(32), head.encode_labels(backbone))
    with torch.no_grad():  # Parts that start at zero would hide what goes through them.
        for parameter in head.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    return head.eval()


@pytest.mark.parametrize("name", HEADS)
def test_a_head_says_whether_it_reads_regions(name: str, backbone: Backbone) -> None:
    head = _head(name, backbone)
    features, labels = some_features(3), head.encode_labels(backbone)
    others = ImageFeatures(features.pooled, some_features(3, seed=1).regions)

    one, other = (head(given, labels).probabilities()["both"] for given in (features, others))

    assert torch.equal(one, other) is not head.reads_regions
    assert reads_regions(HEADS[name]) == head.reads_regions
    if not head.reads_regions:
        without = ImageFeatures(features.pooled, features.pooled.new_empty(3, 0, backbone.width))
        assert torch.equal(head(without, labels).probabilities()["both"], one)


@pytest.mark.parametrize("name", HEADS)
def test_logits_are_finite_and_every_parameter_learns(name: str, backbone: Backbone) -> None:
    head = _head(name, backbone)

    prediction = head(some_features(3), head.encode_labels(backbone))

    assert all(logits.shape == (3, len(LABELS)) for logits in prediction.logits.values())
    assert prediction.probabilities()["both"].isfinite().all()
    sum(logits.square().sum() for logits in prediction.logits.values()).backward()
    idle = [key for key, value in head.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not idle


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_an_image_alone_and_in_a_batch_give_the_same(name: str, backbone: Backbone) -> None:
    head = _head(name, backbone)
    features, labels = some_features(4), head.encode_labels(backbone)

    together = head(features, labels).logits
    alone = head(ImageFeatures(features.pooled[2:3], features.regions[2:3]), labels).logits

    for branch, logits in alone.items():
        torch.testing.assert_close(logits, together[branch][2:3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "query2label"])
@torch.no_grad()
def test_the_order_of_regions_means_nothing_without_positions(name: str, backbone: Backbone) -> None:
    head = _head(name, backbone)
    features, labels = some_features(2), head.encode_labels(backbone)

    shuffled = ImageFeatures(features.pooled, features.regions[:, torch.randperm(16)])

    for branch, logits in head(shuffled, labels).logits.items():
        torch.testing.assert_close(logits, head(features, labels).logits[branch], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in HEADS if name.startswith(("sspa", "zero")) or "shared" in name])
@torch.no_grad()
def test_a_permutation_of_labels_permutes_the_outputs(name: str, backbone: Backbone) -> None:
    head = _head(name, backbone)
    features, knowledge = some_features(3), some_knowledge()
    before = head(features, head.encode_labels(backbone)).logits
    order = [3, 0, 4, 2, 1]

    head.bind(backbone, knowledge.for_labels([LABELS[index] for index in order]))

    for branch, logits in head(features, head.encode_labels(backbone)).logits.items():
        torch.testing.assert_close(logits, before[branch][:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in HEADS if name.startswith("zero") or "shared" in name])
@torch.no_grad()
def test_labels_it_never_saw_leave_the_others_alone(name: str, backbone: Backbone) -> None:
    head = _head(name, backbone)
    assert head.open_vocabulary
    before = head(some_features(3), head.encode_labels(backbone)).logits

    head.bind(backbone, some_knowledge((*LABELS, "zebra", "a very long name for an umbrella")))

    for branch, logits in head(some_features(3), head.encode_labels(backbone)).logits.items():
        assert logits.shape == (3, 7)
        torch.testing.assert_close(logits[:, :5], before[branch], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["sspa", "csra", "dualcoop"])
@torch.no_grad()
def test_the_evidence_explains_the_region_logit(name: str, backbone: Backbone) -> None:
    head = _head(name, backbone)
    features, labels = some_features(2), head.encode_labels(backbone)

    prediction = head(features, labels, explain=True)

    assert prediction.evidence is not None
    weights, of_regions = prediction.evidence.region_weights, prediction.evidence.region_logits
    assert weights.shape == of_regions.shape == (2, 16, len(LABELS))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, len(LABELS)))
    torch.testing.assert_close(prediction.logits["region"], head(features, labels).logits["region"])
    if name != "csra":  # CSRA's heads attend apart; its evidence is their mean.
        torch.testing.assert_close((weights * of_regions).sum(dim=1), prediction.logits["region"], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_bf16_stays_near_float32(backbone: Backbone) -> None:
    head = _head("sspa", backbone)
    features = some_features(4)
    exact = head(features, head.encode_labels(backbone)).probabilities()["both"]

    with torch.autocast("cpu", torch.bfloat16):
        rounded = head(features, head.encode_labels(backbone)).probabilities()["both"]

    # Eight bits of mantissa, through towers, four boxes and a scale of 20.
    assert (exact - rounded).abs().max() < 0.05
    assert not torch.equal(exact, rounded)
