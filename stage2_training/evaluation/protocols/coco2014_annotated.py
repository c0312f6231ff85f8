"""COCO 2014 with annotated images only."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="coco2014-annotated",
    dataset="coco2014",
    splits="annotated images of train2014 (val held out of it) and of val2014: 82,081 and 40,137",
    unlabelled_images="drop",
    headline=("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1"),
    source="ADD-GCN, TDRG and others",
)
