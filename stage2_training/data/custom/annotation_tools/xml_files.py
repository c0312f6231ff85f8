"""XML of annotation tools: read without entities, and with one line for every defect."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from sspa.shared.errors import UserError

# The first event that expat reports beyond the head; a document type comes before the first element.
_DECLARATIONS = (b"<!DOCTYPE", b"<!ENTITY")
_HEAD_BYTES = 1 << 16


def xml_elements(path: Path, tag: str) -> Iterator[ElementTree.Element]:
    """Each complete element of that tag, which is emptied after use; also the outermost one.

    Raises:
        UserError: the file cannot be read, is not XML, or declares entities.
    """
    try:
        with path.open("rb") as file:
            # Entities can make gigabytes out of a few lines; no annotation needs one.
            if any(word in file.read(_HEAD_BYTES) for word in _DECLARATIONS):
                raise UserError(f"{path}: declares a document type or entities, which are not read; remove them")
            file.seek(0)
            for _, element in ElementTree.iterparse(file, events=("end",)):
                if element.tag == tag:
                    yield element
                    element.clear()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: cannot be read as XML ({error})") from error


def outermost_tag(path: Path) -> str:
    """The tag of the outermost element; "" if the file is not XML."""
    try:
        with path.open("rb") as file:
            if any(word in file.read(_HEAD_BYTES) for word in _DECLARATIONS):
                return ""
            file.seek(0)
            for _, element in ElementTree.iterparse(file, events=("start",)):
                return str(element.tag)
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        return ""
    return ""
