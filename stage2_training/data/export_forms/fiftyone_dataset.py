"""A FiftyOne data set (https://docs.voxel51.com), in its own database."""

from pathlib import Path

from sspa.shared.errors import UserError
from sspa.stage2_training.data.export_forms.marked_images import MarkedImages


def write_fiftyone(found: MarkedImages, name: str, root: Path) -> int:
    """Create the persistent data set `name`: field `ground_truth` or `predictions`, splits as tags.

    Raises:
        UserError: FiftyOne is not installed, or has a data set of that name.
    """
    try:
        import fiftyone
    except ImportError as error:
        raise UserError(f"--to fiftyone needs FiftyOne ({error}); pip install fiftyone") from error
    if fiftyone.dataset_exists(name):
        raise UserError(f"{name}: FiftyOne has a data set of that name already; choose another name")
    samples = []
    for image in found.images:
        sample = fiftyone.Sample(
            filepath=str((root / image.path).absolute()), tags=[image.split] if image.split else []
        )
        sample["predictions" if found.predicted else "ground_truth"] = fiftyone.Classifications(
            classifications=[
                fiftyone.Classification(label=label, confidence=image.probabilities.get(label)) for label in image.there
            ]
        )
        if image.unknown:
            sample["unknown"] = list(image.unknown)
        samples.append(sample)
    dataset = fiftyone.Dataset(name, persistent=True)
    dataset.add_samples(samples)
    return len(samples)
