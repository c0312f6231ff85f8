"""The baselines' own formulas against loops, and their sizes against their papers."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sspa.stage2_training.model.baselines.csra import CSRA
from sspa.stage2_training.model.baselines.dual_coop import DualCoOp, compare_prompts
from sspa.stage2_training.model.baselines.linear_probe import LinearProbe
from sspa.stage2_training.model.baselines.ml_decoder import MLDecoder
from sspa.stage2_training.model.baselines.options import (
    CsraOptions,
    DualCoOpOptions,
    LinearProbeOptions,
    MlDecoderOptions,
    TipAdapterOptions,
    ZeroShotOptions,
)
from sspa.stage2_training.model.baselines.query2label import sine_positions
from sspa.stage2_training.model.baselines.tip_adapter import TipAdapter
from sspa.stage2_training.model.baselines.zero_shot import ZeroShot
from sspa.stage2_training.model.contract import trainable_count

from ..small_models import LABELS, small_backbone, some_features, some_knowledge, some_targets


def _softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def _dot(a: Tensor, b: Tensor) -> float:
    return float(sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def test_csra_adds_what_each_head_attends_to_the_mean(tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path)
    head = CSRA(CsraOptions(heads=4, weight=0.3), 40)
    head.bind(backbone, some_knowledge())
    features = some_features(2)

    logits = head(features, {}).logits["region"].detach()

    for image in range(2):
        for label in range(len(LABELS)):
            expected = 0.0
            for rows, temperature in zip(head.classifiers.detach(), (1, 2, 4, None), strict=True):
                row = rows[label] / rows[label].norm()
                scores = [_dot(region, row) for region in features.regions[image]]
                if temperature is None:
                    attended = max(scores)
                else:
                    weights = _softmax([temperature * score for score in scores])
                    attended = sum(weight * score for weight, score in zip(weights, scores, strict=True))
                expected += sum(scores) / 16 + 0.3 * attended
            assert float(logits[image, label]) == pytest.approx(expected, abs=1e-4)


def test_dualcoop_compares_its_prompts_under_the_positive_ones_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    regions, positive, negative = (torch.randn(size, generator=generator) for size in ((2, 6, 5), (3, 5), (3, 5)))

    logits, _, _ = compare_prompts(regions, positive, negative)

    for image in range(2):
        for label in range(3):
            present, absent = (
                [20 * _dot(region / region.norm(), text / text.norm()) for region in regions[image]]
                for text in (positive[label], negative[label])
            )
            weights = _softmax(present)
            expected = sum(5 * w * (p - a) for w, p, a in zip(weights, present, absent, strict=True))
            assert float(logits[image, label]) == pytest.approx(expected, abs=1e-3)


def test_zero_shot_ranks_by_cosine_whatever_is_trained(tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path)
    head = ZeroShot(ZeroShotOptions(), 40)
    head.bind(backbone, some_knowledge())
    features = some_features(8)
    texts = backbone.encode_text([f"A photo of a {label}." for label in LABELS])
    cosines = torch.nn.functional.cosine_similarity(features.pooled[:, None], texts[None], dim=-1)

    with torch.no_grad():
        head.to_logit.bias.add_(1.7)
        head.to_logit.log_scale.add_(0.4)
    logits = head(features, head.encode_labels(backbone)).logits["global"]

    assert trainable_count(head) == 2
    assert torch.equal(logits.argsort(dim=0), cosines.argsort(dim=0))


def test_parameter_counts_follow_the_papers(tmp_path: Path) -> None:
    backbone, knowledge = small_backbone(tmp_path), some_knowledge()

    def count(head: CSRA | MLDecoder | DualCoOp | LinearProbe) -> int:
        head.bind(backbone, knowledge)
        return trainable_count(head)

    d, w, c = 40, 768, len(LABELS)
    assert count(LinearProbe(LinearProbeOptions(), d)) == d * c + c
    assert count(CSRA(CsraOptions(heads=6), d)) == 6 * d * c + c
    decoder = d * w + w + 4 * w * w + 4 * w + 3 * 2 * w + 2 * w * 2048 + w + 2048
    assert count(MLDecoder(MlDecoderOptions(), d)) == decoder + c * w + c  # one label a group when C < 100
    assert count(DualCoOp(DualCoOpOptions(), d)) == 2 * 16 * 32 * c
    assert count(DualCoOp(DualCoOpOptions(class_specific=False), d)) == 2 * 16 * 32


def test_ml_decoder_decodes_labels_in_groups(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = MLDecoder(MlDecoderOptions(width=8, groups=2, heads=2, hidden=4), 40)
    head.bind(small_backbone(tmp_path), some_knowledge())
    head.eval()
    before = head(some_features(1), {}).logits["region"]

    with torch.no_grad():
        head.group_weights[1, 0] += 1.0
    changed = (head(some_features(1), {}).logits["region"] - before).abs() > 1e-6

    # Two groups of three for five labels: the second holds labels 3 and 4, its last place stays unused.
    assert changed.tolist() == [[False, False, False, True, True]]


def test_sine_positions_tell_every_place_apart() -> None:
    positions = sine_positions(3, 5, 16)

    assert positions.shape == (15, 16)
    assert torch.cdist(positions, positions).fill_diagonal_(1.0).min() > 0.1
    assert torch.equal(positions[0, :8], positions[4, :8])  # the same row
    assert torch.equal(positions[0, 8:], positions[10, 8:])  # the same column


def test_tip_adapter_adds_the_targets_of_similar_training_images(tmp_path: Path) -> None:
    backbone = small_backbone(tmp_path)
    options = TipAdapterOptions(alpha=3.0, beta=2.0, images=40)
    head, plain = TipAdapter(options, 40), ZeroShot(ZeroShotOptions(), 40)
    for made in (head, plain):
        made.bind(backbone, some_knowledge())
    cached, targets, features = some_features(6, seed=1), some_targets(6), some_features(2)

    head.initialise(cached, targets, head.encode_labels(backbone))

    logits = head(features, head.encode_labels(backbone)).logits["global"].detach()
    of_text = plain(features, plain.encode_labels(backbone)).logits["global"].detach()
    scale = float(head.to_logit.log_scale.exp().detach())
    keys, images = (F.normalize(found.pooled, dim=-1) for found in (cached, features))
    for image in range(2):
        for label in range(len(LABELS)):
            positives = [row for row in range(6) if targets[row, label] == 1]
            similar = sum(math.exp(-2.0 * (1 - _dot(images[image], keys[row]))) for row in positives)
            expected = float(of_text[image, label]) + scale * 3.0 / 100 * similar / max(len(positives), 1)
            assert float(logits[image, label]) == pytest.approx(expected, abs=1e-4)
