"""What a review starts from: photos, given marks, an audit's doubts, settings."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocols import get_protocol
from sspa.stage2_training.model.baselines.options import LinearProbeOptions
from sspa.stage2_training.model.options import SspaOptions
from sspa.stage2_training.review.command import given_marks, photo_qualities, review_config


def test_given_marks_follow_the_labels_that_are_asked_about() -> None:
    labels = LabelSet("mine", (Label("cat", "cat"), Label("dog", "dog")))
    ids = Texts(["a.jpg", "b.jpg"])
    targets = np.array([[1, 0], [-1, 1]], np.int8)
    manifest = Manifest("mine", labels, get_protocol("custom"), "", ids, ids, Texts(["train", "val"]), targets)
    asked = LabelSet("mine", (Label("fox", "fox"), Label("dog", "a dog"), Label("cat", "cat")))
    assert given_marks(manifest, asked).tolist() == [[-1, 0, 1], [-1, 1, -1]]
    with pytest.raises(UserError, match=r"the manifest has other labels \(cat, dog\)"):
        given_marks(manifest, LabelSet("other", (Label("fox", "fox"),)))


def test_an_audit_doubts_a_photo_as_much_as_its_worst_mark(tmp_path: Path) -> None:
    table = tmp_path / "suspects.parquet"
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "a.jpg", "elsewhere.jpg")]
    pq.write_table(pa.table({"path": paths, "quality": [0.3, 0.2, 0.1, 0.0]}), table)
    assert photo_qualities(table, tmp_path, ["a.jpg", "b.jpg", "c.jpg"]).tolist() == [0.1, 0.2, 1.0]
    with pytest.raises(UserError, match="doubts none of the photos"):
        photo_qualities(table, tmp_path, ["c.jpg"])
    (tmp_path / "x.parquet").write_text("no table")
    with pytest.raises(UserError, match="not a table of `data audit`"):
        photo_qualities(tmp_path / "x.parquet", tmp_path, ["a.jpg"])


def test_the_recipe_for_few_photos_gives_way_to_what_the_user_says() -> None:
    fast = ("model.cap.learned=false",)
    config = review_config(Path("k"), "natural", [], [], fast)
    assert (config.training.batch_size, config.training.epochs, config.training.views) == (8, 20, ("plain",))
    assert config.preset == "embedded-photos"
    assert config.backbone.image_size == (384, 384)
    assert isinstance(config.model, SspaOptions)
    assert not config.model.cap.learned
    assert review_config(Path("k"), "remote_sensing", [], [], fast).preset == "embedded-aerial"
    other = review_config(Path("k"), "natural", [], ["training.epochs=3", "model.head=linear"], fast)
    assert other.training.epochs == 3
    assert isinstance(other.model, LinearProbeOptions)
    clip = review_config(
        Path("k"), "natural", [], ["backbone.name=open_clip:ViT-B-32", "backbone.weights=random"], fast
    )
    assert clip.backbone.image_size is None
