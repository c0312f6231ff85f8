"""NUS-WIDE by its official lists, every image."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="nuswide-official",
    dataset="nuswide",
    splits="TrainImagelist (val held out of it) and TestImagelist: 161,789 and 107,859 images",
    headline=("mAP", "CF1", "OF1"),
    source="NUS-WIDE (CIVR 2009)",
)
