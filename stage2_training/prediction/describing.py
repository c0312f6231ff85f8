"""Descriptions of the labels given by `--labels`: written by stage one's program, in a process of its own."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from sspa.shared.cache import cache_folder
from sspa.shared.errors import UserError
from sspa.shared.files import replacing
from sspa.shared.knowledge import Knowledge, read_knowledge
from sspa.shared.label_sets import LabelSet
from sspa.shared.terminal import say

_PROGRAM = "sspa-knowledge"
_STANDARD_ERROR = 2


def described(labels: LabelSet) -> Knowledge:
    """Knowledge about labels, written now by the default model of `sspa-knowledge generate`, or cached from before.

    The stages do not import each other: they meet in this command and the file that it writes.

    Raises:
        UserError: `sspa-knowledge` is not installed, or it failed, with its own messages above.
    """
    lines = f"# domain: {labels.domain}\n" + "".join(f"{label.key}\n" for label in labels.labels)
    kept = cache_folder("described") / hashlib.sha256(lines.encode()).hexdigest()[:16]
    file = kept.with_suffix(".parquet")
    if not file.is_file():
        with replacing(kept.with_suffix(".txt")) as beside:
            beside.write_text(lines, encoding="utf-8")
        command = [_program(), "generate", "--labels", str(kept.with_suffix(".txt")), "--output", str(file)]
        say(f"writing descriptions: {shlex.join([_PROGRAM, *command[1:]])}")
        # Its results go to standard output, which is reserved for ours.
        if (code := subprocess.run(command, stdout=_STANDARD_ERROR, check=False).returncode) != 0:
            raise UserError(f"{_PROGRAM} generate ended with {code}; see above, or leave out --describe")
    knowledge = read_knowledge(file).for_labels(labels.keys)
    for label in knowledge.labels:
        say(f"{label.key}: {' '.join(knowledge.descriptions[label.key])}")
    return knowledge


def _program() -> str:
    """The console script next to this Python, or on the PATH."""
    beside = Path(sys.executable).parent
    found = shutil.which(_PROGRAM, path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    if found is None:
        raise UserError(f"--describe needs {_PROGRAM}, which is not installed here; give --knowledge FILE instead")
    return found
