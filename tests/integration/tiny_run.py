"""A run that trains in seconds: coloured squares, a random CLIP ViT, and label names that break careless pages."""

from pathlib import Path

import numpy as np
from PIL import Image

from sspa.shared.knowledge_format import write_knowledge
from sspa.shared.label_sets import Label, LabelSet
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest, write_manifest
from sspa.stage2_training.evaluation.protocols import get_protocol

from ..stage2_training.backbones.architectures import write_model

COLOURS = {"<b>red</b> & co": (220, 20, 20), "$green^{x}$": (20, 200, 20), "blau 'ü' \"青\"": (20, 20, 220)}
LABELS = LabelSet("squares", tuple(Label(f"square{number}", text) for number, text in enumerate(COLOURS)))
_SIZES = {"train": 96, "val": 24, "test": 24}


def write_inputs(folder: Path) -> None:
    """Write knowledge.parquet, squares.parquet (a manifest), pictures/ and backbone/."""
    write_knowledge(
        folder / "knowledge.parquet",
        [
            {"label": label.key, "text": label.text, "description": f"A square <i>of one colour</i>, {label.text}."}
            for label in LABELS.labels
        ],
    )
    write_model("vit", folder / "backbone")
    generator = np.random.default_rng(0)
    ids, splits, targets = [], [], []
    (folder / "pictures").mkdir()
    for split, count in _SIZES.items():
        for number in range(count):
            target = np.zeros(len(COLOURS), dtype=np.int8)
            target[generator.permutation(len(COLOURS))[: generator.integers(1, 3)]] = 1
            ids.append(f"{split}{number}")
            splits.append(split)
            targets.append(target)
            _draw(target, generator).save(folder / "pictures" / f"{ids[-1]}.png")
    write_manifest(
        Manifest(
            dataset="squares",
            labels=LABELS,
            protocol=get_protocol("custom"),
            note="coloured squares, made for tests",
            ids=Texts(ids),
            paths=Texts(f"{key}.png" for key in ids),
            splits=Texts(splits),
            targets=np.array(targets),
        ),
        folder / "squares.parquet",
    )


def train_arguments(folder: Path, out: Path) -> list[str]:
    """The arguments of `sspa-train` that train on the inputs in `folder`."""
    settings = {
        "backbone.name": f"local-dir:{folder / 'backbone'}",
        "data.workers": "0",
        "training.batch_size": "8",
        "training.lr": "0.01",
        "training.ema_decay": "0.5",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    data = ["--knowledge", str(folder / "knowledge.parquet"), "--data", str(folder / "squares.parquet")]
    return ["run", *data, "--root", str(folder / "pictures"), "--epochs", "4", "--out", str(out), *given]


def _draw(target: np.ndarray, generator: np.random.Generator) -> Image.Image:
    pixels = generator.integers(90, 160, (64, 96, 3), dtype=np.uint8)
    for label in np.flatnonzero(target):
        top, left = generator.integers(0, 40), generator.integers(0, 70)
        pixels[top : top + 24, left : left + 26] = list(COLOURS.values())[label]
    return Image.fromarray(pixels)
