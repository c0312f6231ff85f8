"""Renders the blocks of a prompt template: built-in ones here, a user's own in a process with bounded time and memory.

Jinja's sandbox keeps a template from Python's internals, not from `'a' * 10**9` or two nested loops; even compiling one
can take gigabytes, since constants are computed then.
"""

import json
import resource
import select
import subprocess
import sys
from typing import IO, Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sspa.shared.errors import UserError

MAX_CHARACTERS = 20_000
# Of one block. Generous: on a busy machine a process may wait.
SECONDS = 10.0
MEMORY = 1 << 30


class Blocks:
    """A compiled template: `names` of its blocks, and each block as text."""

    def __init__(self, content: str) -> None:
        """Compile.

        Raises:
            TemplateError: it is not a Jinja2 template.
        """
        # Sandboxed, because prompt files get passed around; strict, so that a misspelt name is an error.
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, auto_reload=False)
        self._template = environment.from_string(content)
        self.names = frozenset(self._template.blocks)

    def render(self, block: str, values: dict[str, Any]) -> str:
        """The text of a block, without space around it.

        Raises:
            ValueError: the block fails on these values; the message says how.
        """
        try:
            return "".join(self._template.blocks[block](self._template.new_context(values))).strip()
        except Exception as error:
            # A template can raise anything that Python can; in each case it is the template that needs fixing.
            raise ValueError(
                str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            ) from error


class BoundedBlocks:
    """The same in a process of its own, which is ended where a block takes too long."""

    def __init__(self, content: str, name: str) -> None:
        """Start the process and compile; `name` is the template's, for messages.

        Raises:
            UserError: it is not a Jinja2 template, or compiling takes too much.
        """
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        found = self._ask({"content": content})
        if "error" in found:
            raise UserError(f"{name}{found.get('line', '')}: not a Jinja2 template: {found['error']}")
        self.names = frozenset(found["names"])

    def render(self, block: str, values: dict[str, Any]) -> str:
        """See `Blocks.render`.

        Raises:
            ValueError: see `Blocks.render`.
            UserError: the block takes more than `SECONDS` or `MEMORY`.
        """
        found = self._ask({"block": block, "values": values})
        if "error" in found:
            raise ValueError(found["error"])
        return str(found["text"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
            ready, _, _ = select.select([stdout], [], [], SECONDS)
            line = stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, line = [stdout], b""
        if not line:
            self._process.kill()
            self._process.wait()
            what = f"more than {MEMORY >> 20:,} MB of memory" if ready else f"longer than {SECONDS:g} s"
            where = f"block {question['block']!r} takes" if "block" in question else "it takes"
            raise UserError(f"{self._name}: {where} {what}; a prompt is a few lines of text")
        found: dict[str, Any] = json.loads(line)
        return found

    def __del__(self) -> None:
        if (process := getattr(self, "_process", None)) is not None and process.poll() is None:
            process.kill()
            process.wait()


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Compile the first line's template, and render a block for each line after it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content).encode() + b"\n")
        answers.flush()

    try:
        blocks = Blocks(json.loads(questions.readline())["content"])
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        answer({"error": error.message, "line": f", line {line}" if line else ""})
        return
    answer({"names": sorted(blocks.names)})
    for line in questions:
        question = json.loads(line)
        try:
            text = blocks.render(question["block"], question["values"])
        except ValueError as error:
            answer({"error": str(error)[:1000]})
        else:
            # Its length is all that the other side says about more.
            answer({"text": text[: 10 * MAX_CHARACTERS]})


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
