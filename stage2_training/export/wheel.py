"""This program as a wheel, made from what is installed: so a packaged model works where nobody has heard of it."""

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import distribution
from importlib.resources.abc import Traversable
from pathlib import Path

DISTRIBUTION = "sspa-multilabel"
# Each is a folder of its own in a clone, and a package below the first once installed.
_PACKAGES = ("sspa", "sspa.prompts", "sspa.shared", "sspa.stage1_knowledge", "sspa.stage2_training")
# In a clone that stands in the way of the installation, setuptools' own folder has another name for the first.
_METADATA = {"METADATA": "PKG-INFO", "entry_points.txt": "entry_points.txt", "licenses/LICENSE": "LICENSE"}
# So that the same program gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path) -> Path:
    """Write the wheel of the running version into a folder; the code of a clone as it is now.

    It is what the project's build would make, without a build backend or a network (the wheel format is PEP 427).
    """
    ours = distribution(DISTRIBUTION)
    stem = f"{DISTRIBUTION.replace('-', '_')}-{ours.version}"
    path = folder / f"{stem}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name: str, content: bytes) -> None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}")
            wheel.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)

        for package in _PACKAGES:
            for name, file in _files(resources.files(package), package.replace(".", "/")):
                add(name, file.read_bytes())
        about = f"{stem}.dist-info"
        for name, other in _METADATA.items():
            if (text := ours.read_text(name) or ours.read_text(other)) is not None:
                add(f"{about}/{name}", text.encode())
        add(f"{about}/WHEEL", b"Wheel-Version: 1.0\nGenerator: sspa\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        record.append(f"{about}/RECORD,,\n")
        wheel.writestr(zipfile.ZipInfo(f"{about}/RECORD", _DATE), "\n".join(record))
    return path


def _files(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        below = f"{name}/{entry.name}"
        if entry.is_dir():
            # Of an installed package, the other packages are folders in its own; each is listed once.
            if entry.name != "__pycache__" and below.replace("/", ".") not in _PACKAGES and below != "sspa/shared/sspa":
                yield from _files(entry, below)
        elif not entry.name.endswith((".pyc", ".pyo")):
            yield below, entry
