"""Cuts images into units of work: a shard, or so many rows of a list. A unit's name is that of its output file."""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, TextIO

from sspa.shared.errors import UserError
from sspa.stage2_training.data.columns import Texts
from sspa.stage2_training.data.image_files import IMAGE_ENDINGS, EncodedImage, files_below
from sspa.stage2_training.data.object_storage import below, files_under, is_address, open_stream, read_bytes
from sspa.stage2_training.data.shards import SHARD_ENDING
from sspa.stage2_training.prediction.image_paths import find_images

AnyImage = Path | EncodedImage
# Bytes of an image in a shard: a sparse member of a small file can claim any number, and a few dozen are read ahead.
_LARGEST = 1 << 28


class Unit(Protocol):
    """Some images that are tagged together, in the same order each time. Can be sent to other processes."""

    @property
    def name(self) -> str:
        """Of its output file, without the ending."""

    def images(self) -> Iterator[AnyImage]:
        """Its images.

        Raises:
            UserError: what it is cut from is missing.
        """


@dataclass(frozen=True)
class ListedImages:
    """Rows of a list of paths and addresses."""

    name: str
    listed: Texts

    def images(self) -> Iterator[AnyImage]:
        return map(_image, self.listed)


@dataclass(frozen=True)
class TableRows:
    """Rows of a Parquet table with a column `path`, of which only their row groups are read."""

    name: str
    table: str
    first: int
    count: int

    def images(self) -> Iterator[AnyImage]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(_local_or_opened(self.table)) as file:
            start = 0
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if start < self.first + self.count and start + rows > self.first:
                    paths = file.read_row_group(group, columns=["path"])["path"]
                    own = paths.slice(max(self.first - start, 0), self.first + self.count - max(self.first, start))
                    yield from map(_image, own.to_pylist())
                start += rows


@dataclass(frozen=True)
class ImagesInShard:
    """The images of a tar file (WebDataset), read once from its beginning to its end."""

    name: str
    shard: str

    def images(self) -> Iterator[AnyImage]:
        with _opened(self.shard) as stream:
            try:
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    for member in tar:
                        # Names of other bytes than UTF-8 cannot be kept in a table.
                        shown = member.name.encode(errors="backslashreplace").decode()
                        if member.size > _LARGEST:
                            # Not skipped: what a false size claims would be looked for, block after block.
                            reason = (
                                f"{member.size:,} bytes; {_LARGEST:,} is the limit, and the shard is read no further"
                            )
                            yield _failing(below(self.shard, shown), reason)
                            return
                        if member.isfile() and PurePosixPath(shown).suffix.lower() in IMAGE_ENDINGS:
                            content = tar.extractfile(member)
                            assert content is not None  # a file has content
                            yield _in_memory(below(self.shard, shown), content.read())
            except (tarfile.TarError, EOFError) as error:
                yield _failing(self.shard, f"the shard ends here: {error}")


def find_units(arguments: Sequence[str], per_unit: int, standard_input: TextIO | None = None) -> list[Unit]:
    """The units of everything that the arguments name.

    Args:
        arguments: as for `find_images`; addresses of images, or of folders (s3://bucket/photos/); tar files, or folders
            with tar files; Parquet tables with a column `path`.
        per_unit: the number of rows that are cut from a list or a table at a time.
        standard_input: sys.stdin by default.

    Raises:
        UserError: an argument matches nothing, is not such a table, or two shards have the same name.
    """
    units: list[Unit] = []
    listed: dict[str, None] = {}
    for argument in arguments:
        files = _files_of(argument)
        shards = [file for file in files if _ending(file) == SHARD_ENDING]
        units += [ImagesInShard(PurePosixPath(shard.partition("?")[0]).stem, shard) for shard in shards]
        if _ending(argument) == ".parquet":
            units += _rows_of(argument, per_unit)
        elif is_address(argument):
            images = [file for file in files if _ending(file) in IMAGE_ENDINGS]
            if not images and not shards:
                raise UserError(f"{argument}: no images there; give a folder's address, an image's, or a shard's")
            listed.update(dict.fromkeys(images))
        elif shards:
            # Loose images beside the shards of a folder.
            listed.update(dict.fromkeys(map(str, files_below(Path(argument))[0] if Path(argument).is_dir() else ())))
        else:
            listed.update(dict.fromkeys(map(str, find_images([argument], standard_input))))
    texts = Texts(listed)
    for number, start in enumerate(range(0, len(texts), per_unit)):
        units.append(ListedImages(f"images-{number:06}", texts[start : start + per_unit]))
    if repeated := [name for name, count in Counter(unit.name for unit in units).items() if count > 1]:
        raise UserError(
            f"{repeated[0]}: {len(repeated)} names belong to two shards or tables; rename one, or tag apart"
        )
    return units


def cut_of(units: Sequence[Unit]) -> str:
    """A digest of how lists and tables were cut: units of the same names are the same images only if it is equal.

    Shards leave it as it is, so that others can be added later.
    """
    digest = hashlib.sha256()
    for unit in units:
        if isinstance(unit, ListedImages):
            digest.update("\n".join((unit.name, *unit.listed)).encode())
        elif not isinstance(unit, ImagesInShard):
            digest.update(repr(unit).encode())
    return digest.hexdigest()


def _files_of(argument: str) -> list[str]:
    """What an argument may name of shards or, by address, images; none for lists of other things."""
    if is_address(argument):
        return [argument] if _ending(argument) else list(files_under(argument))
    if Path(argument).is_dir():
        return sorted(str(file) for file in Path(argument).iterdir() if file.suffix == SHARD_ENDING)
    return [argument] if _ending(argument) == SHARD_ENDING else []


def _rows_of(table: str, per_unit: int) -> Iterator[Unit]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_local_or_opened(table)) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{table}: cannot be read as Parquet ({str(error).splitlines()[0][:160]})") from error
    if "path" not in schema.names or not (
        pa.types.is_string(schema.field("path").type) or pa.types.is_large_string(schema.field("path").type)
    ):
        raise UserError(f"{table}: has no column `path` of text; it has {', '.join(schema.names)}")
    stem = PurePosixPath(table.partition("?")[0]).stem
    for number, first in enumerate(range(0, rows, per_unit)):
        yield TableRows(f"{stem}-{number:06}", table, first, min(per_unit, rows - first))


def _opened(file: str) -> BinaryIO:
    try:
        return open_stream(file) if is_address(file) else Path(file).open("rb")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from error


def _local_or_opened(table: str) -> object:
    return io.BytesIO(read_bytes(table)) if is_address(table) else table


def _ending(name: str) -> str:
    return PurePosixPath(name.partition("?")[0] if is_address(name) else name).suffix.lower()


def _image(name: str) -> AnyImage:
    return EncodedImage(name, lambda: read_bytes(name)) if is_address(name) else Path(name)


def _in_memory(name: str, content: bytes) -> EncodedImage:
    return EncodedImage(name, lambda: content)


def _failing(name: str, reason: str) -> EncodedImage:
    """An image that cannot be read; of a damaged shard, it stands for those that the shard no longer has."""

    def read() -> bytes:
        raise OSError(reason)

    return EncodedImage(name, read)
