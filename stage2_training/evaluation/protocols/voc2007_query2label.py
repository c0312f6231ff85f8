"""VOC 2007 with AP over the running maximum of precision, as Query2Label's evaluation code computes it."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="voc2007-query2label",
    dataset="voc2007",
    splits="the devkit's trainval (val held out of it) and test lists",
    average_precision="interpolated",
    difficult="ignore",
    source="Query2Label (2021), its evaluation code",
)
