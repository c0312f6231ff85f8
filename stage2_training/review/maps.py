"""Where a label was seen in a photo, by the model as it has learned so far."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.inference.region_maps import region_maps
from sspa.stage2_training.pages.overlay import over_image, small
from sspa.stage2_training.review.learning import Learner

_LONGEST = 1024


class MapDrawer:
    """Draws region maps with a learner's current model, from the features that it keeps.

    Not through the image tower, which another thread switches to training and back while the model learns.

    Args:
        learner: knows the photos by their rows.
        root, paths: where they are.
    """

    def __init__(self, learner: Learner, root: Path, paths: Sequence[str]) -> None:
        self._learner, self._root, self._paths = learner, root, paths

    @torch.inference_mode()
    def __call__(self, row: int, column: int) -> bytes | None:
        """The photo with the map of the label at this position over it, as JPEG; None without regions.

        Raises:
            UserError: the photo cannot be read, or the model has not read it yet.
        """
        if not self._learner.has_read:
            raise UserError("the model is still reading the photos; maps come with its suggestions")
        recognizer = self._learner.recognizer()
        evidence = recognizer(self._learner.features(row), explain=True).evidence
        if evidence is None:
            return None
        maps = region_maps(evidence).mT.unflatten(-1, recognizer.backbone.grid)  # (1, C, rows, columns)
        image = small(load_image(self._root / self._paths[row], _LONGEST), _LONGEST)
        buffer = io.BytesIO()
        over_image(image, maps[0, column].float().cpu().numpy()).save(buffer, "JPEG", quality=85)
        return buffer.getvalue()
