"""NUS-WIDE by its official lists, labelled images only."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="nuswide-annotated",
    dataset="nuswide",
    splits="labelled images of TrainImagelist (val held out of it) and of TestImagelist: 125,449 and 83,898",
    unlabelled_images="drop",
    headline=("mAP", "CF1", "OF1"),
    source="a common variant in the field",
)
