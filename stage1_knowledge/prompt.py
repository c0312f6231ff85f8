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

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sspa.shared.errors import UserError
from sspa.shared.label_sets import DOMAINS, Label
from sspa.stage1_knowledge.engines.contract import Message

MAX_CHARACTERS = 20_000

# Stands for the label in errors about blocks that are the same for all labels.
_DEMONSTRATION = Label(key="(demonstration)", text="(demonstration)")
_NEEDED = ("demonstration_label", "question", "demonstration_answer")


@dataclass(frozen=True, eq=False)
class Prompt:
    """A checked template: its file's name, the SHA-256 of the file, and the compiled blocks."""

    name: str
    hash: str
    template: Template

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
        if "system" in self.template.blocks:
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
        if block not in self.template.blocks:
            raise UserError(f"{self.name}: lacks the block {block!r}, which this answer form needs")
        context = self.template.new_context(values)
        try:
            content = "".join(self.template.blocks[block](context)).strip()
        except Exception as error:
            # A template can raise anything that Python can; in each case it is the template that needs fixing.
            what = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            raise UserError(f"{self.name}: block {block!r} fails for label {label.key!r}: {what}") from error
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
    return _compiled(name, resources.files("sspa.prompts").joinpath(name).read_bytes())


def read_prompt(path: Path) -> Prompt:
    """A user's own prompt file.

    Raises:
        UserError: it is not readable, not a Jinja2 template, or lacks a required block.
    """
    try:
        return _compiled(path.name, path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: the template cannot be read ({error.strerror})") from error


def _compiled(name: str, content: bytes) -> Prompt:
    # Sandboxed, because prompt files get passed around; strict, so that a misspelt name is an error.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, auto_reload=False)
    try:
        template = environment.from_string(content.decode())
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: the template is not UTF-8 text") from error
    except TemplateError as error:
        line = f", line {lineno}" if (lineno := getattr(error, "lineno", None)) else ""
        raise UserError(f"{name}{line}: not a Jinja2 template: {error.message}") from error
    if missing := [block for block in _NEEDED if block not in template.blocks]:
        raise UserError(f"{name}: lacks the block {missing[0]!r}; a prompt has the blocks {', '.join(_NEEDED)}")
    return Prompt(name=name, hash=hashlib.sha256(content).hexdigest(), template=template)
