"""Prompt files: a Jinja2 file becomes the chat that a language model continues (in-context prompting).

The chat is the same for all labels up to its last turn: a question about the demonstration's label, its answer,
and then the same question about the label at hand. A prefix cache serves all but the end of it.
"""

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.label_sets import DOMAINS, Label
from sspa.stage1_knowledge.engines.contract import Message
from sspa.stage1_knowledge.template_blocks import MAX_CHARACTERS, Blocks, BoundedBlocks

MAX_BYTES = 1 << 20

# Stands for the label in errors about blocks that are the same for all labels.
_DEMONSTRATION = Label(key="(demonstration)", text="(demonstration)")
_NEEDED = ("demonstration_label", "question", "demonstration_answer")


@dataclass(frozen=True, eq=False)
class Prompt:
    """A checked template: its file's name, the SHA-256 of the file, and its blocks."""

    name: str
    hash: str
    blocks: Blocks | BoundedBlocks

    def chat(self, label: Label, question: str = "question", answer: str = "demonstration_answer") -> list[Message]:
        """The chat about `label`: (system,) question, demonstration, question.

        Args:
            label: the label to ask about.
            question: the block with the question.
            answer: the block with the answer about the demonstration's label.

        Raises:
            UserError: the template lacks a block, or fails on this label.
        """
        last = {"role": "user", "content": self.block(question, label, text=label.text, hint=label.hint)}
        return [*self._opening(question, answer), last]

    @cache  # noqa: B019  (a run has one prompt, and every chat begins with the same turns)
    def _opening(self, question: str, answer: str) -> tuple[Message, ...]:
        """The turns before the label's own, the same for every label."""
        asked = self.block(question, _DEMONSTRATION, text=self.demonstration_label, hint="")
        turns = [("user", asked), ("assistant", self.block(answer, _DEMONSTRATION))]
        if "system" in self.blocks.names:
            turns.insert(0, ("system", self.block("system", _DEMONSTRATION)))
        return tuple({"role": role, "content": content} for role, content in turns)

    @cached_property
    def demonstration_label(self) -> str:
        """The label that the model is shown an answer for."""
        return self.block("demonstration_label", _DEMONSTRATION)

    @cached_property
    def demonstration_answer(self) -> str:
        """What the model is shown as the answer about `demonstration_label`."""
        return self.block("demonstration_answer", _DEMONSTRATION)

    def block(self, block: str, label: Label, **values: Any) -> str:
        """The text of one block, given `values`.

        Raises:
            UserError: the template lacks the block, or fails on this label.
        """
        if block not in self.blocks.names:
            raise UserError(f"{self.name}: lacks the block {block!r}, which this answer form needs")
        try:
            content = self.blocks.render(block, values)
        except ValueError as error:
            raise UserError(f"{self.name}: block {block!r} fails for label {label.key!r}: {error}") from error
        if not content:
            raise UserError(f"{self.name}: block {block!r} is empty for label {label.key!r}")
        if len(content) > MAX_CHARACTERS:
            raise UserError(
                f"{self.name}: block {block!r} gives {len(content):,} characters for label {label.key!r}; "
                f"{MAX_CHARACTERS:,} is the limit"
            )
        return content


def built_in_prompt(domain: str) -> Prompt:
    """The prompt of a domain: natural, pedestrian or remote_sensing."""
    if domain not in DOMAINS:
        raise UserError(f"--domain {domain}: unknown; choose one of {', '.join(DOMAINS)}")
    name = f"{domain}.jinja"
    content = resources.files("sspa.prompts").joinpath(name).read_bytes()
    return _checked(name, content, Blocks(content.decode()))


def read_prompt(path: Path) -> Prompt:
    """A user's own prompt file, whose blocks are rendered with bounded time and memory.

    Raises:
        UserError: it is not readable, not a Jinja2 template, or lacks a required block.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the template cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: has {len(content):,} bytes; {MAX_BYTES:,} is the limit")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: the template is not UTF-8 text") from error
    return _checked(path.name, content, BoundedBlocks(text, path.name))


def _checked(name: str, content: bytes, blocks: Blocks | BoundedBlocks) -> Prompt:
    if missing := [block for block in _NEEDED if block not in blocks.names]:
        raise UserError(f"{name}: lacks the block {missing[0]!r}; a prompt has the blocks {', '.join(_NEEDED)}")
    return Prompt(name=name, hash=hashlib.sha256(content).hexdigest(), blocks=blocks)
