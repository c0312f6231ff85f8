"""Reads MATLAB files, first in a process of its own: on some damaged ones scipy does not raise but ends the process."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError


def read_mat(path: Path) -> dict[str, Any]:
    """A MATLAB file of version 7 or older.

    Raises:
        UserError: it is missing, truncated, or not a MATLAB file.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise UserError(f"{path}: is missing; is the archive unpacked completely?")
    tried = subprocess.run([sys.executable, "-m", __name__, str(path)], capture_output=True, check=False)
    if tried.returncode < 0:
        raise UserError(f"{path}: not a readable MATLAB file (it ends the program that reads it); unpack it again")
    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:  # scipy raises a dozen exception types on damaged files
        raise UserError(f"{path}: not a readable MATLAB file ({error}); unpack it again") from None
    return content


if __name__ == "__main__":
    from scipy.io import loadmat

    loadmat(sys.argv[1])
