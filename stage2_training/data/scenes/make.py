"""Creates the whole data set once: JPEG files, a manifest, and the attribution that the drawings' licence requires."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sspa.shared.files import replacing_folder
from sspa.shared.label_sets import read_label_set
from sspa.shared.terminal import progress
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.manifest import Manifest, write_manifest
from sspa.stage2_training.data.scenes.compose import Scene, draw_scene, plan_scene
from sspa.stage2_training.data.scenes.drawings import ATTRIBUTION, rasterise
from sspa.stage2_training.evaluation.protocols import get_protocol

# So few that the demo takes minutes.
COUNTS = {"train": 800, "val": 200, "test": 400}
MANIFEST = "manifest.parquet"
NOTE = "images made from OpenMoji drawings (CC BY-SA 4.0), not photos"
# Increased whenever the same seed would give other images, so that no cache serves old ones.
RECIPE = 4
_JPEG_QUALITY = 90


def make_scenes(folder: Path, seed: int = 0, counts: dict[str, int] | None = None) -> None:
    """Create `folder` with pictures/, manifest.parquet and CREDITS.txt, all or nothing, showing progress.

    Raises:
        UserError: the drawings are not installed, or the folder cannot be written.
    """
    counts = counts or COUNTS
    scenes = [plan_scene(split, number, seed) for split, count in counts.items() for number in range(count)]
    for code in {item.drawing.code for scene in scenes for item in scene.placed}:
        rasterise(code)
    with replacing_folder(folder, keep_theirs=True) as beside:
        (beside / "pictures").mkdir()

        def finish(scene: Scene) -> None:
            draw_scene(scene, seed).save(beside / "pictures" / f"{scene.name}.jpg", quality=_JPEG_QUALITY)

        # Threads suffice: Pillow releases the GIL while it scales, rotates and encodes.
        with (
            progress("making scenes", total=len(scenes), unit="images") as bar,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            for _ in pool.map(finish, scenes):
                bar.advance()
        write_manifest(scenes_manifest(scenes), beside / MANIFEST)
        (beside / "CREDITS.txt").write_text(f"{ATTRIBUTION}.\nThe images made from them are under the same licence.\n")


def scenes_manifest(scenes: list[Scene]) -> Manifest:
    """The manifest of planned scenes."""
    labels = read_label_set("voc")
    targets = np.array([[key in scene.labels for key in labels.keys] for scene in scenes], dtype=np.int8)
    return Manifest(
        dataset="scenes",
        labels=labels,
        protocol=get_protocol("scenes"),
        note=NOTE,
        ids=Texts(scene.name for scene in scenes),
        paths=Texts(f"pictures/{scene.name}.jpg" for scene in scenes),
        splits=Texts(scene.name.split("-")[0] for scene in scenes),
        targets=targets,
    )
