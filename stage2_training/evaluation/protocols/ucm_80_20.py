"""UC Merced multi-label, four fifths of each category to train on."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="ucm-80-20",
    dataset="ucm",
    splits="a fifth of each category is test, chosen by a hash of the id; val held out of the rest",
    headline=("mAP", "CF1", "OF1"),
    source="a draw of ours: the data set has no official split",
)
