"""The tensors of a run folder: weights and predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sspa.shared.errors import UserError
from sspa.stage2_training.compute.tensor_files import UNREADABLE, read_tensors, write_tensors
from sspa.stage2_training.data.dataset import Split
from sspa.stage2_training.evaluation.metrics import Probabilities
from sspa.stage2_training.runs.run_folder import WEIGHTS, RunFolder

# Of the branches in tables, after "region".
_PLACES = {"global": 1, "knowledge": 2, "both": 3}


def write_weights(folder: RunFolder, modules: torch.nn.Module) -> None:
    """Write the state of the trained modules."""
    write_tensors(modules.state_dict(), folder.file(WEIGHTS))


def read_weights(folder: RunFolder, modules: torch.nn.Module) -> None:
    """Load the state of the trained modules.

    Raises:
        UserError: the file is missing, damaged, or of another model.
    """
    path = folder.file(WEIGHTS)
    try:
        modules.load_state_dict(read_tensors(path))
    except FileNotFoundError as error:
        raise UserError(f"{folder.path}: is not a finished run ({WEIGHTS} is missing)") from error
    except UNREADABLE as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: does not hold this run's weights ({reason}); it is damaged") from error


def write_predictions(
    folder: RunFolder, probabilities: Probabilities, split: Split, name: str = "predictions.safetensors"
) -> None:
    """Write a split's probabilities by branch, its targets and the order of its ids; by default, test's."""
    tensors = {f"probabilities.{branch}": torch.from_numpy(values) for branch, values in probabilities.items()}
    tensors["targets"] = torch.from_numpy(np.ascontiguousarray(split.targets))
    write_tensors(tensors, folder.file(name))
    folder.write_json("test_ids.json", list(split.ids))


def read_predictions(
    folder: RunFolder, name: str = "predictions.safetensors"
) -> tuple[Probabilities, np.ndarray[Any, np.dtype[np.int8]]]:
    """The test split's probabilities by branch, "both" last, and its targets (N, C).

    Raises:
        UserError: the file is missing or damaged.
    """
    path = folder.file(name)
    try:
        tensors = read_tensors(path)
    except FileNotFoundError as error:
        raise UserError(f"{folder.path}: is not a finished run ({name} is missing)") from error
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({error}); it is damaged") from error
    _check_predictions(path, tensors, len(folder.record().labels))
    targets = tensors.pop("targets").numpy()
    found = {name.removeprefix("probabilities."): values.numpy() for name, values in tensors.items()}
    # The file stores its tensors in alphabetical order.
    return {name: found[name] for name in sorted(found, key=lambda name: (_PLACES.get(name, 0), name))}, targets


def _check_predictions(path: Path, tensors: Mapping[str, torch.Tensor], labels: int) -> None:
    """Reject anything but targets (N, C) int8 and, for "both" and other branches, probabilities (N, C) float32."""
    targets = tensors.get("targets")
    branches = [value for name, value in tensors.items() if name.startswith("probabilities.")]
    if (
        targets is None
        or targets.dtype != torch.int8
        or targets.shape[1:] != (labels,)
        or "probabilities.both" not in tensors
        or len(branches) != len(tensors) - 1
        or any(value.dtype != torch.float32 or value.shape != targets.shape for value in branches)
    ):
        raise UserError(f"{path}: does not hold the predictions of this run's {labels} labels; it is damaged")
