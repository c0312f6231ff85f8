"""The embedded backbone knows real photos before any training."""

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.data.dataset import load_dataset
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.transforms import TransformOptions, make_transform
from sspa.stage2_training.evaluation.metrics import evaluate_scores

_ROOT = Path(os.environ.get("SSPA_VOC2007_ROOT") or Path(__file__).parents[4] / "shared" / "data" / "VOCdevkit")
_IMAGES = 120


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not _ROOT.is_dir(), reason="no VOC2007 photos: set SSPA_VOC2007_ROOT")
@torch.no_grad()
def test_label_names_rank_real_photos() -> None:
    dataset = load_dataset("voc2007", _ROOT)
    val = dataset.splits["val"]
    backbone = create_backbone("embedded")
    transform = make_transform(backbone.image_size, False, TransformOptions())
    images = torch.stack([transform(load_image(path)) for path in val.paths[:_IMAGES]])
    pooled = torch.cat([backbone.encode_image(chunk).pooled for chunk in images.split(24)])
    texts = backbone.encode_text([label.text for label in dataset.labels.labels])

    scores = F.normalize(pooled, dim=-1) @ F.normalize(texts, dim=-1).T

    metrics = evaluate_scores(
        (20 * scores).sigmoid().numpy(), val.targets[:_IMAGES], dataset.labels.keys, dataset.protocol
    )
    # The 1,000 test photos give 78 to 79 (docs/results.md).
    assert metrics.mAP > 0.65
