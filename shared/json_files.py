"""JSON that anyone may have written: bounded in size, and one line for every defect."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sspa.shared.errors import UserError

# Of run records and settings; data sets' own files are larger.
LARGEST_BYTES = 64 << 20

Model = TypeVar("Model", bound=BaseModel)


def read_json(path: Path, largest: int | None = LARGEST_BYTES) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        largest: the largest accepted size in bytes; None for any.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is too large, cannot be read, or is not JSON.
    """
    try:
        size = path.stat().st_size
        if largest is not None and size > largest:
            raise UserError(f"{path}: has {size:,} bytes; {largest:,} is the limit")
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_json(content, str(path))


def check_shape(kind: type[Model], content: Any, problem: str) -> Model:
    """The content of a JSON file as a pydantic model.

    Raises:
        UserError: `problem`, and the first field that is missing or invalid.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(f"{problem} ({where}: {first['msg']})") from error


def parse_json(text: str | bytes, where: str) -> Any:
    """The content of JSON text; `where` names its origin in the message.

    Raises:
        UserError: it is not JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{where}: cannot be read as JSON (it is nested too deeply)") from error
    except ValueError as error:
        raise UserError(f"{where}: cannot be read as JSON ({error})") from error
