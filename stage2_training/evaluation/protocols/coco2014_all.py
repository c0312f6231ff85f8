"""COCO 2014 with every image, labelled or not."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="coco2014-all",
    dataset="coco2014",
    splits="train2014 (val held out of it), and val2014 as test: 82,783 and 40,504 images",
    headline=("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1"),
    source="ML-GCN and most of the field",
)
