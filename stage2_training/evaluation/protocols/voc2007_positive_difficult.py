"""VOC 2007 with difficult objects counted like all others."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="voc2007-positive-difficult",
    dataset="voc2007",
    splits="the devkit's trainval (val held out of it) and test lists",
    difficult="positive",
    source="a named variant of ours",
)
