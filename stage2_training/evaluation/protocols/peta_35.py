"""PETA with its first 35 attributes."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="peta-35",
    dataset="peta",
    splits="the first of the five random partitions: 9,500 train, 1,900 val, 7,600 test",
    headline=("mA", "accuracy", "precision", "recall", "F1"),
    source="the common selection of Deng et al. (ACM MM 2014)",
)
