"""VOC 2012 measured on its val list, since its test labels are not public."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="voc2012-val",
    dataset="voc2012",
    splits="the devkit's train list (val held out of it), and its val list as test: 5,717 and 5,823",
    headline=("mAP",),
    source="a common variant in the field",
)
