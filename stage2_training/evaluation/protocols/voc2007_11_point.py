"""VOC 2007 with the challenge's own 11-point AP."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="voc2007-11-point",
    dataset="voc2007",
    splits="the devkit's trainval (val held out of it) and test lists",
    average_precision="11-point",
    difficult="ignore",
    source="The PASCAL Visual Object Classes Challenge 2007",
)
