"""Where a label was seen in a photo, by the model as it has learned so far."""

import io
import threading
from pathlib import Path

import torch

from sspa.stage2_training.data.image_files import load_image
from sspa.stage2_training.data.transforms import make_transform
from sspa.stage2_training.inference.region_maps import region_maps
from sspa.stage2_training.pages.overlay import over_image, small
from sspa.stage2_training.review.learning import Learner

_LONGEST = 1024


class MapDrawer:
    """Draws region maps with a learner's current model, one at a time."""

    def __init__(self, learner: Learner) -> None:
        self._learner, self._one_at_a_time = learner, threading.Lock()
        backbone = learner.recognizer().backbone
        self._transform = make_transform(backbone.image_size, backbone.mean, backbone.std, train=False)

    @torch.inference_mode()
    def __call__(self, path: Path, column: int) -> bytes | None:
        """The photo with the map of the label at this position over it, as JPEG; None without regions.

        Raises:
            UserError: the photo cannot be read.
        """
        with self._one_at_a_time:
            image = load_image(path)
            recognizer = self._learner.recognizer()
            inputs = self._transform(image)[None].to(self._learner.device)
            evidence = recognizer(inputs, explain=True).evidence
            if evidence is None:
                return None
            maps = region_maps(evidence).mT.unflatten(-1, recognizer.backbone.grid)  # (1, C, rows, columns)
            drawn = over_image(small(image, _LONGEST), maps[0, column].float().cpu().numpy())
            buffer = io.BytesIO()
            drawn.save(buffer, "JPEG", quality=85)
            return buffer.getvalue()
