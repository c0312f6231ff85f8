"""Trains a model in memory, quickly: no val, no checkpoints, no run folder.

For whoever trains again and again on a few images, such as a page whose suggestions improve while a person answers.
`run` is for everything else.
"""

from collections.abc import Callable

import torch

from sspa.stage2_training.compute.processes import ALONE
from sspa.stage2_training.config.run_config import RunConfig
from sspa.stage2_training.features.batches import FeatureBatches
from sspa.stage2_training.model.losses import positive_shares
from sspa.stage2_training.model.recognizer import Recognizer
from sspa.stage2_training.training.optimization import make_optimization
from sspa.stage2_training.training.steps import train_steps
from sspa.stage2_training.training.train_state import TrainState


def fit(
    recognizer: Recognizer, batches: FeatureBatches, config: RunConfig, go_on: Callable[[], bool] = lambda: True
) -> bool:
    """Train for `config.training.epochs`, and leave the averaged weights in the model; whether it was finished.

    Args:
        recognizer: with its initial values; in evaluation mode afterwards.
        batches: of the training images, shuffled.
        config: loss and schedule; nothing of it names data.
        go_on: asked before every step; what is not finished is not to be used.

    Raises:
        UserError: the loss is not finite, or diverges.
    """
    optimization = make_optimization(recognizer, config.training, len(batches))
    state, shares = TrainState(), positive_shares(torch.from_numpy(batches.targets)).to(batches.device)
    while state.epoch <= config.training.epochs:
        for _ in train_steps(recognizer, optimization, batches, config, state, ALONE, shares):
            if not go_on():
                return False
        state.next_epoch()
    optimization.trained.load_state_dict(optimization.ema.module.state_dict())
    recognizer.eval()
    return True
