"""PA100K as published."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="pa100k",
    dataset="pa100k",
    splits="80,000 train, 10,000 val and 10,000 test images, as published",
    headline=("mA", "accuracy", "precision", "recall", "F1"),
    source="HydraPlus-Net (ICCV 2017)",
)
