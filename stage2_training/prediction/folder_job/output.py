"""The folder that a job writes: one file per unit, put there whole, on a disk or in object storage."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.json_files import parse_json
from sspa.shared.temporary_folders import delete_abandoned
from sspa.stage2_training.data.object_storage import below, file_system, is_address, read_bytes, write_bytes

_ENDING = ".parquet"
_JOB = "job.json"


class OutputFolder:
    """Any number of processes may write to it at once: a file is complete when it appears, and of two of the same name
    either may stay, since they hold the same."""

    def __init__(self, place: str) -> None:
        self.place = place.rstrip("/")

    def begin(self, job: Mapping[str, Any], labels: str) -> None:
        """Say in the folder what is written to it: `job`, of JSON's types, and labels.csv.

        Raises:
            UserError: it holds the output of another job, or cannot be written.
        """
        if not is_address(self.place):
            # A process killed right after its file appeared leaves its temporary folder; nobody writes that file again.
            delete_abandoned(Path(self.place))
        there = self._read(_JOB)
        if there is None:
            self._write("labels.csv", labels.encode())
            self._write(_JOB, json.dumps(job).encode())
            return
        other = parse_json(there, f"{self.place}/{_JOB}")
        if not isinstance(other, dict) or {**other, "lists": job["lists"]} != job:
            raise UserError(
                f"{self.place}: holds the predictions of another run, other labels or thresholds; choose another --out"
            )
        if other["lists"] != job["lists"]:
            raise UserError(
                f"{self.place}: was begun with another list of images, or cut by another --per-file; give the same "
                "again, or choose another --out"
            )

    def finished(self) -> set[str]:
        """The names of the units whose files are there."""
        if not is_address(self.place):
            return {file.stem for file in Path(self.place).glob(f"*{_ENDING}")}
        import pyarrow.fs as fs

        system, path = file_system(self.place)
        files = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return {PurePosixPath(file.path).stem for file in files if file.path.endswith(_ENDING)}

    def has(self, unit: str) -> bool:
        """Whether a unit's file is there."""
        return self._read_info(f"{unit}{_ENDING}")

    def put(self, unit: str, content: bytes) -> None:
        """Write a unit's file.

        Raises:
            UserError: it cannot be written.
        """
        self._write(f"{unit}{_ENDING}", content)

    def _read_info(self, name: str) -> bool:
        if not is_address(self.place):
            return (Path(self.place) / name).is_file()
        import pyarrow.fs as fs

        system, path = file_system(below(self.place, name))
        info: Any = system.get_file_info(path)
        return bool(info.type == fs.FileType.File)

    def _read(self, name: str) -> bytes | None:
        if not self._read_info(name):
            return None
        try:
            return (
                read_bytes(below(self.place, name))
                if is_address(self.place)
                else (Path(self.place) / name).read_bytes()
            )
        except OSError as error:
            raise UserError(f"{below(self.place, name)}: cannot be read ({error.strerror or error})") from error

    def _write(self, name: str, content: bytes) -> None:
        if is_address(self.place):
            try:
                write_bytes(below(self.place, name), content)
            except OSError as error:
                reason = str(error).splitlines()[0][:200]
                raise UserError(f"{below(self.place, name)}: cannot be written ({reason})") from error
            return
        with replacing(Path(self.place) / name) as beside:
            beside.write_bytes(content)
