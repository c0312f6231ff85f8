"""VOC 2007 as DualCoOp evaluates it: a label with only difficult objects is absent."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="voc2007-dualcoop",
    dataset="voc2007",
    splits="the devkit's trainval (val held out of it) and test lists",
    difficult="negative",
    source="DualCoOp (NeurIPS 2022)",
)
