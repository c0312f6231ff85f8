"""XML of annotation tools: read without entities, and with one line for every defect."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from sspa.shared.errors import UserError

# The first event that expat reports beyond the head; a document type comes before the first element.
_DECLARATIONS = (b"<!DOCTYPE", b"<!ENTITY")
_HEAD_BYTES = 1 << 16
# Of one image's annotations.
LARGEST_BYTES = 64 << 20


def xml_root(path: Path) -> ElementTree.Element:
    """The outermost element of a small file.

    Raises:
        UserError: the file cannot be read, is not XML, declares entities, or is larger than `LARGEST_BYTES`.
    """
    if (size := path.stat().st_size) > LARGEST_BYTES:
        raise UserError(f"{path}: has {size:,} bytes; {LARGEST_BYTES:,} is the limit for one image's annotations")
    # An empty file is no XML, so that there is a last one.
    return deque(_complete_elements(path), maxlen=1)[0]


def xml_elements(path: Path, tag: str) -> Iterator[ElementTree.Element]:
    """Each complete element of that tag; it is emptied after use, so that a file may be large.

    Raises:
        UserError: the file cannot be read, is not XML, or declares entities.
    """
    for element in _complete_elements(path):
        if element.tag == tag:
            yield element
            element.clear()


def _complete_elements(path: Path) -> Iterator[ElementTree.Element]:
    """Every element as it ends; the outermost one last."""
    try:
        with path.open("rb") as file:
            # Entities can make gigabytes out of a few lines; no annotation needs one.
            if any(word in file.read(_HEAD_BYTES) for word in _DECLARATIONS):
                raise UserError(f"{path}: declares a document type or entities, which are not read; remove them")
            file.seek(0)
            for _, element in ElementTree.iterparse(file, events=("end",)):
                yield element
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
