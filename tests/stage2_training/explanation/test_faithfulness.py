"""Faithfulness metrics on images whose answer is obvious."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.explanation import faithfulness
from sspa.stage2_training.explanation.boxes import voc_boxes
from sspa.stage2_training.explanation.faithfulness import STEPS, area_under, centres_inside, mixed_images
from sspa.stage2_training.inference.region_maps import region_maps, strongest_region
from sspa.stage2_training.inference.tagger import Tagger
from sspa.stage2_training.model.contract import Evidence, Prediction


def test_centres_inside_boxes() -> None:
    # An image of 40 x 20 pixels in 2 x 4 regions of 10 x 10: their centres at 5, 15, 25, 35 and 5, 15.
    inside = centres_inside([(0, 0, 16, 10), (34, 14, 36, 16)], (40, 20), (2, 4)).reshape(2, 4)
    assert inside.tolist() == [[True, True, False, False], [False, False, False, True]]


def test_regions_go_in_the_order_given() -> None:
    sharp, blurred = torch.ones(3, 4, 8), torch.zeros(3, 4, 8)
    order = np.array([5, 0, 1, 2, 3, 4, 6, 7])
    mixed = mixed_images(sharp, blurred, order, (2, 4))
    assert mixed.shape == (len(STEPS), 3, 4, 8)
    assert mixed.mean(dim=(1, 2, 3)).tolist() == pytest.approx((1 - STEPS).tolist())
    # After the first step region 5, in the second row and column, is gone.
    assert mixed[1, :, 2:, 2:4].sum() == 0
    assert mixed[1, :, :2].min() == 1


def test_area_under_a_curve() -> None:
    assert area_under(np.array([1.0, 1.0, 1.0])) == 1.0
    assert area_under(np.array([1.0, 0.5, 0.0])) == 0.5
    assert area_under(np.array([1.0, 0.0, 0.0, 0.0, 0.0])) == 0.125


def test_a_map_is_weight_times_what_the_region_said() -> None:
    logits = torch.tensor([[[2.0], [-3.0], [0.0]]])
    weights = torch.tensor([[[0.2], [0.7], [0.1]]])
    found = region_maps(Evidence(logits, weights))[0, :, 0].tolist()
    assert found == pytest.approx([0.2 / (1 + np.exp(-2)), 0.7 / (1 + np.exp(3)), 0.05])
    assert strongest_region(np.array([[0, 0, 1], [0, 2, 0]], dtype=np.float32), (31, 20)) == (10, 10, 21, 20)


def test_boxes_of_an_annotation(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir()
    image = tmp_path / "JPEGImages" / "000001.jpg"
    with pytest.raises(UserError, match="--explanations needs boxes"):
        voc_boxes(image)
    box = "<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>20</ymax></bndbox>"
    annotation = tmp_path / "Annotations" / "000001.xml"
    annotation.write_text(
        f"<annotation><size><width>30</width><height>40</height></size><object><name>dog</name>{box}</object></annotation>"
    )
    assert voc_boxes(image) == ({"dog": [(0, 2, 10, 20)]}, (30, 40))
    annotation.write_text(annotation.read_text().replace("<xmax>10</xmax>", ""))
    with pytest.raises(UserError, match=r"000001\.xml: cannot be read as a VOC annotation \(no bndbox/xmax\)"):
        voc_boxes(image)


def test_a_model_that_sees_one_region_loses_it_first_in_the_right_order() -> None:
    """The score is the contrast within region 5 of 16: removing it first, or adding it last, leaves the least area."""
    sharp = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))

    def contrast(images: torch.Tensor, _: object) -> Prediction:
        spread = images[:, :, 8:16, 8:16].std(dim=(1, 2, 3))[:, None]
        return Prediction({"region": torch.cat([torch.zeros_like(spread), 20 * spread - 3], dim=1)})

    tagger = SimpleNamespace(recognizer=contrast, label_features={}, device=torch.device("cpu"), grid=(4, 4))
    others = [region for region in range(16) if region != 5]
    orders = {"first": np.array([5, *others]), "last": np.array([*others, 5])}

    areas = faithfulness._areas(cast(Tagger, tagger), sharp, orders, label=1)

    (deletion, insertion), (late_deletion, late_insertion) = areas["first"], areas["last"]
    assert deletion < late_deletion - 0.3
    assert insertion > late_insertion + 0.3
    assert set(faithfulness._areas(cast(Tagger, tagger), sharp, orders, label=0).values()) == {(0.5, 0.5)}
