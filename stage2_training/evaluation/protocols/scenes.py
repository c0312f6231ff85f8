"""The embedded images made from OpenMoji drawings: nobody else's numbers compare with these."""

from sspa.stage2_training.evaluation.protocol import Protocol

PROTOCOL = Protocol(
    name="scenes",
    dataset="scenes",
    splits="2,000 train, 400 val and 1,000 test images made from a seed; val and test drawings are new where possible",
    source="this project",
)
