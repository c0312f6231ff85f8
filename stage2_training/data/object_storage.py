"""Files by address (s3://, gs://, ...) through pyarrow's file systems, beside files by path."""

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO

from sspa.shared.errors import UserError


def is_address(name: str) -> bool:
    """Whether it is an address (scheme://...), and no path."""
    return "://" in name


def below(address: str, name: str) -> str:
    """The path or address of a file in a folder; of an address with the folder's options."""
    folder, mark, options = address.partition("?") if is_address(address) else (address, "", "")
    return f"{folder.rstrip('/')}/{name}{mark}{options}"


def file_system(address: str) -> tuple[Any, str]:
    """pyarrow's file system of an address, and the path in it. Keys and regions come from the usual variables.

    Raises:
        UserError: a scheme that pyarrow does not know, or an address that it refuses.
    """
    scheme, _, rest = address.partition("://")
    place, _, path = rest.partition("/")
    # Options, such as another endpoint, follow the last path.
    path, mark, options = path.partition("?")
    system, base = _connected(f"{scheme}://{place}/{mark}{options}")
    return system, f"{base}/{path}"


def read_bytes(address: str) -> bytes:
    """The content of a file.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    system, path = file_system(address)
    with system.open_input_stream(path) as stream:
        content: bytes = stream.read()
    return content


def open_stream(address: str) -> BinaryIO:
    """A file to be read once from its beginning.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    system, path = file_system(address)
    return io.BufferedReader(system.open_input_stream(path))


def write_bytes(address: str, content: bytes) -> None:
    """Put a file in its place, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    system, path = file_system(address)
    # In one piece: what an exception interrupts would be stored as if it were whole.
    with system.open_output_stream(path) as stream:
        stream.write(content)


def files_under(address: str) -> Iterator[str]:
    """The addresses of all files below a folder, sorted.

    Raises:
        UserError: there is no such folder, or it cannot be listed.
    """
    import pyarrow.fs as fs

    system, path = file_system(address)
    folder = path.rstrip("/")
    try:
        found = system.get_file_info(fs.FileSelector(folder, recursive=True))
    except OSError as error:
        raise UserError(f"{address}: cannot be listed ({str(error).splitlines()[0][:200]})") from error
    names = sorted(info.path for info in found if info.type == fs.FileType.File)
    return (below(address, name.removeprefix(f"{folder}/")) for name in names)


@lru_cache(maxsize=64)
def _connected(root: str) -> tuple[Any, str]:
    import pyarrow as pa
    import pyarrow.fs as fs

    try:
        system, base = fs.FileSystem.from_uri(root)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{root}: cannot be opened ({str(error).splitlines()[0][:200]})") from error
    return system, str(base).rstrip("/")
