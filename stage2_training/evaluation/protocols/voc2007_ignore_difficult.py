"""VOC 2007 as the devkit's own classification task: a label with only difficult objects is unknown."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="voc2007-ignore-difficult",
    dataset="voc2007",
    splits="the devkit's trainval (val held out of it) and test lists",
    difficult="ignore",
    source="VOC 2007 devkit (class files mark such images 0), with non-interpolated AP",
)
