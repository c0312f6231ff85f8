"""One's own images: nothing is known but what the user's files say."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="custom",
    dataset="",
    splits="as the user's files say, or drawn by iterative stratification",
    headline=("mAP", "CF1", "OF1"),
    source="this project",
)
