"""Every head and family of backbones, exported: the same probabilities for any number of images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sspa.stage2_training.backbones.contract import Backbone, ImageFeatures, ImageTower
from sspa.stage2_training.backbones.factory import create_backbone
from sspa.stage2_training.export.program import ImageProgram, capture
from sspa.stage2_training.export.targets import TARGETS
from sspa.stage2_training.model.baselines.dual_coop import DualCoOp
from sspa.stage2_training.model.heads import create_head
from sspa.stage2_training.model.options import DsfOptions, KapOptions, QsmOptions, SspaOptions, View
from sspa.stage2_training.model.recognizer import Recognizer

from ..backbones.architectures import write_model
from ..model.small_models import some_features, some_knowledge, some_targets
from ..model.test_heads import HEADS

VARIANTS = {
    **HEADS,
    "sspa-averaged-logits": SspaOptions(kap=KapOptions(average="logits")),
    "sspa-without-dsf": SspaOptions(dsf=DsfOptions(enabled=False), qsm=QsmOptions(kind="none")),
}


# One of each method; with other options, the quicker export must do.
_IN_ONNX = ("sspa", "zero-shot", "linear", "csra", "ml-decoder", "query2label", "dualcoop")


class _PatchTower(ImageTower):
    """The least of an image tower, for exporting heads: each region is one projected patch."""

    grid = (4, 4)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=16, stride=16)

    def forward(self, images: torch.Tensor) -> ImageFeatures:
        regions = self.patches(images).flatten(2).mT
        return ImageFeatures(regions.mean(dim=1), regions)

    def blocks(self) -> list[nn.Module]:
        return []

    def head(self) -> list[nn.Parameter]:
        return []


class _Tagger:
    """What `capture` reads of a tagger."""

    def __init__(self, backbone: Backbone, head: str, views: tuple[View, ...] = ("plain",)) -> None:
        torch.manual_seed(0)
        made = create_head(VARIANTS[head], backbone.width)
        made.bind(backbone, some_knowledge(descriptions=2))
        regions = backbone.grid[0] * backbone.grid[1]
        made.initialise(some_features(32, backbone.width, regions), some_targets(32), made.encode_labels(backbone))
        with torch.no_grad():  # Parts that start at zero would hide what goes through them.
            for parameter in made.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape))
            if isinstance(made, DualCoOp):  # Random prompts are so far apart that every label saturates alike.
                made.negative.context.copy_(made.positive.context + 0.0005 * torch.randn(made.positive.context.shape))
        self.recognizer, self.views = Recognizer(backbone, made).eval(), views
        with torch.inference_mode():
            self.label_features = self.recognizer.encode_labels()

    @torch.inference_mode()
    def expected(self, images: torch.Tensor) -> torch.Tensor:
        """As `Tagger.probabilities` does it."""
        flipped = {"plain": images, "mirrored": images.flip(-1)}
        by_view = [self.recognizer(flipped[view]) for view in self.views]
        branches = {
            name: torch.stack([prediction.logits[name].sigmoid() for prediction in by_view]).mean(dim=0)
            for name in by_view[0].logits
        }
        return torch.stack(list(branches.values())).logit().mean(dim=0).sigmoid()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


def _backbone(family: str, folder: Path) -> Backbone:
    if not (folder / family).exists():
        write_model(family, folder / family)
    return create_backbone(f"local-dir:{folder / family}")


def _same_in(target: str, tagger: _Tagger, path: Path) -> None:
    TARGETS[target].write(capture(tagger), {}, path)  # type: ignore[arg-type]
    exported = TARGETS[target].open(path)
    height, width = tagger.recognizer.backbone.image_size
    for count in (1, 2, 5):
        images = torch.randn(count, 3, height, width)
        expected = tagger.expected(images).numpy()
        assert expected.std() > 1e-3  # not one value for everything: many times what may differ
        np.testing.assert_allclose(exported(images), expected, atol=2e-5)


def test_both_views_are_folded_in(folder: Path) -> None:
    tagger = _Tagger(_backbone("vit", folder), "sspa", ("plain", "mirrored"))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        program = ImageProgram(tagger)(images)  # type: ignore[arg-type]
    torch.testing.assert_close(program, tagger.expected(images))
    torch.testing.assert_close(program, tagger.expected(images.flip(-1)))


@pytest.mark.slow
@pytest.mark.parametrize("head", VARIANTS)
def test_every_head(head: str, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    backbone = _backbone("vit", folder)
    backbone.image_tower = _PatchTower(backbone.width)
    _same_in("onnx" if head in _IN_ONNX else "torch", _Tagger(backbone, head), tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vit", "resnet", "timm-efficientnet", "timm-siglip"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_family(family: str, target: str, folder: Path, tmp_path: Path) -> None:
    if target == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    _same_in(target, _Tagger(_backbone(family, folder), "linear"), tmp_path / "model")


@pytest.mark.slow
def test_a_mirrored_view(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    backbone = _backbone("vit", folder)
    backbone.image_tower = _PatchTower(backbone.width)
    _same_in("onnx", _Tagger(backbone, "csra", ("plain", "mirrored")), tmp_path / "model")
