"""The two export formats: how each is written, reopened and run.

Legend: B images, C labels.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from sspa.shared.errors import UserError
from sspa.stage2_training.export.program import INPUT, OUTPUT

# Prepared images (B, 3, H, W) -> probabilities (B, C).
Runner = Callable[[Tensor], NDArray[Any]]
Description = dict[str, Any]

DESCRIPTION_FILE = "sspa.json"  # within a .pt2
METADATA_PREFIX = "sspa."  # of ONNX metadata
# ONNX files are protobufs, which are limited to 2 GiB.
_LARGEST_ONNX = 2_000_000_000


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        name: its name on the command line (`--to`).
        ending: its file extension.
        runtime: the software that runs it.
        needs: the packages required to write and check it.
        write: a function of program, description and path.
        open: path -> a runner, with as many threads as torch.
    """

    name: str
    ending: str
    runtime: str
    needs: tuple[str, ...]
    write: Callable[[torch.export.ExportedProgram, Description, Path], None]
    open: Callable[[Path], Runner]

    def check_needs(self) -> None:
        """
        Raises:
            UserError: a package is not installed.
        """
        if missing := [package for package in self.needs if find_spec(package) is None]:
            raise UserError(f"--to {self.name} needs {', '.join(missing)}: install sspa with the extra 'export'")


def _write_onnx(program: torch.export.ExportedProgram, description: Description, path: Path) -> None:
    size = sum(values.numel() * values.element_size() for values in program.state_dict.values())
    if size > _LARGEST_ONNX:
        raise UserError(f"the model is {size / 1e9:.1f} GB and an ONNX file holds 2 at most; use --to torch")
    with _quiet():
        made = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    assert made is not None
    made.model.graph.inputs[0].shape = _named_batch(made.model.graph.inputs[0].shape)
    made.model.graph.outputs[0].shape = _named_batch(made.model.graph.outputs[0].shape)
    for section, content in description.items():
        made.model.metadata_props[METADATA_PREFIX + section] = json.dumps(content, ensure_ascii=False)
    made.save(path, external_data=False)


def _named_batch(shape: Any) -> Any:
    """The same shape, with the first dimension named `batch` instead of torch's own name for it."""
    return type(shape)(["batch", *list(shape)[1:]])


def _open_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> NDArray[Any]:
        (probabilities,) = session.run([OUTPUT], {INPUT: images.numpy()})
        found: NDArray[Any] = probabilities
        return found

    return run


def _write_torch(program: torch.export.ExportedProgram, description: Description, path: Path) -> None:
    text = json.dumps(description, ensure_ascii=False, indent=2)
    # In memory first: on a full disk torch's own writer reports nothing that names the file.
    content = io.BytesIO()
    with _quiet():
        torch.export.save(program, content, extra_files={DESCRIPTION_FILE: text})
    path.write_bytes(content.getbuffer())


def _open_torch(path: Path) -> Runner:
    with path.open("rb") as file, _quiet():
        module = torch.export.load(file).module()

    def run(images: Tensor) -> NDArray[Any]:
        with torch.inference_mode():
            probabilities: Tensor = module(images)
        return probabilities.numpy()

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' messages about their internals; errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


TARGETS = {
    "onnx": Target("onnx", ".onnx", "onnxruntime", ("onnx", "onnxruntime", "onnxscript"), _write_onnx, _open_onnx),
    "torch": Target("torch", ".pt2", "torch.export", (), _write_torch, _open_torch),
}
