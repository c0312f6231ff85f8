"""MultiScene-Clean as published."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="multiscene-clean",
    dataset="multiscene-clean",
    splits="7,000 train (val held out of it) and 7,000 test images, as published",
    headline=("mAP", "CF1", "OF1"),
    source="Hua et al. (TGRS 2022)",
)
