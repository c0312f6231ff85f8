"""NUS-WIDE with its official train and test lists."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sspa.shared.errors import UserError
from sspa.stage2_training.data.adapters.adapter import (
    Adapter,
    Block,
    Published,
    first_existing,
    read_lines,
)
from sspa.stage2_training.data.manifest import Manifest
from sspa.stage2_training.evaluation.protocol import Protocol


class NusWide(Adapter):
    """NUS-WIDE: 81 concepts over Flickr images; each concept has one file of 0 and 1 per list."""

    name = "nuswide"
    title = "NUS-WIDE"
    download = "ImageList.zip, Groundtruth.zip, ConceptsList.zip and the images at lms.comp.nus.edu.sg (NUS-WIDE)"
    layout = (
        "ImageList/TrainImagelist.txt\nImageList/TestImagelist.txt\n"
        "Groundtruth/TrainTestLabels | TrainTestLabels\n"
        "ConceptsList/Concepts81.txt | Concepts81.txt\n"
        "Flickr | images"
    )
    protocols = ("nuswide-official", "nuswide-annotated")
    label_set = "nus_wide"
    label_count = 81
    published = {"trainval": Published(161_789), "test": Published(107_859)}
    published_labelled = {"trainval": Published(125_449), "test": Published(83_898)}
    usual_folders = ("NUS-WIDE", "nuswide", "nus_wide")

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        concepts = [
            line.strip() for line in read_lines(first_existing(root, "ConceptsList/Concepts81.txt", "Concepts81.txt"))
        ]
        truth = first_existing(root, "Groundtruth/TrainTestLabels", "TrainTestLabels")
        images = first_existing(root, "Flickr", "images").relative_to(root).as_posix()
        blocks = []
        for split, word in {"train": "Train", "test": "Test"}.items():
            listed = read_lines(root / "ImageList" / f"{word}Imagelist.txt")
            # The lists were written on Windows: actor\0001_2124494179.jpg
            files = [line.strip().replace("\\", "/") for line in listed]
            columns = [_read_marks(truth / f"Labels_{concept}_{word}.txt", len(files)) for concept in concepts]
            ids = [Path(file).stem for file in files]
            blocks.append(Block(split, ids, [f"{images}/{file}" for file in files], np.stack(columns, axis=1)))
        return self.manifest(self.labels(concepts), protocol, blocks)


def _read_marks(path: Path, count: int) -> NDArray[np.int8]:
    lines = [line.strip() for line in read_lines(path)]
    if len(lines) != count:
        raise UserError(f"{path}: {len(lines)} lines for a list of {count} images; unpack it again")
    wrong = next((number for number, line in enumerate(lines, start=1) if line not in ("0", "1")), None)
    if wrong:
        raise UserError(f"{path}, line {wrong}: {lines[wrong - 1]!r} is neither 0 nor 1")
    return np.array(lines, dtype=np.int8)
