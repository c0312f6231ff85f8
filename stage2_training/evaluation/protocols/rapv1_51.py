"""RAPv1 with its first 51 attributes."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="rapv1-51",
    dataset="rapv1",
    splits="the first of the five random partitions: 33,268 train (val held out of it), 8,317 test",
    headline=("mA", "accuracy", "precision", "recall", "F1"),
    source="Li et al. (arXiv 1603.07054)",
)
