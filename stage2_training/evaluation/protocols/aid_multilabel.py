"""AID multi-label as published."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="aid-multilabel",
    dataset="aid",
    splits="images_tr (val held out of it) and images_test: 2,400 and 600 images",
    headline=("mAP", "CF1", "OF1"),
    source="Hua et al. (2019)",
)
