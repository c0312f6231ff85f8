"""What README and docs tell people to type exists: commands, options, settings, imports, files."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sspa.shared.suggestions import nearest
from sspa.stage2_training.config.schema import setting_keys

from .test_command_line import PROGRAMS, root_of

ROOT = Path(__file__).parent.parent
# What was measured was measured with the program of its day.
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")} - {ROOT / "docs" / "results.md"})
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4})[^\n]*\n)+", re.MULTILINE)
_INLINE = re.compile(r"`((?:sspa-train|sspa-knowledge) [^`]+)`")


def commands(page: Path) -> Iterator[str]:
    """Every command of ours on a page, in blocks and between backticks, one line each."""
    text = page.read_text(encoding="utf-8")
    blocks = [body for language, body in _FENCE.findall(text) if language in ("", "sh", "bash")]
    blocks += _INDENTED.findall(_FENCE.sub("", text))
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\||;", line.partition("#")[0]):
                if part.strip().startswith(tuple(PROGRAMS)):
                    yield part.strip()
    yield from (found.partition("#")[0].replace("\n", " ") for found in _INLINE.findall(text))


def problems_of(command: str) -> list[str]:
    """Why a command cannot be typed: unknown subcommands, options, setting keys."""
    try:
        program, *words = shlex.split(command)
    except ValueError:  # an apostrophe: a sentence about the command
        program, *words = command.split()
    at: Any = root_of(program)
    while words and getattr(at, "commands", None):
        if words[0] not in at.commands:
            return [] if words[0].startswith(("-", "[", "...", "…")) else [f"{words[0]} is no command"]
        at = at.commands[words.pop(0)]
    known = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    problems = []
    for place, word in enumerate(words):
        # `--thresholds one|each` names two; the last is not an option.
        name = word.partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]+", name) and name not in known:
            problems.append(f"{name} is no option; {nearest(name, known)}")
        if name == "--set" and place + 1 < len(words):
            key = words[place + 1].partition("=")[0]
            if "." in key and key not in setting_keys():
                problems.append(f"{key} is no setting; {nearest(key, setting_keys())}")
    return problems


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_can_be_typed(page: Path) -> None:
    assert {command: found for command in commands(page) if (found := problems_of(command))} == {}


def test_there_are_commands_and_mistakes_are_found() -> None:
    assert len([command for page in PAGES for command in commands(page)]) > 100
    assert problems_of("sspa-train runn X") == ["runn is no command"]
    assert problems_of("sspa-train run --konwledge k.parquet") == [
        "--konwledge is no option; did you mean --knowledge?"
    ]
    assert problems_of("sspa-train run --set training.lrr=1")[0].startswith("training.lrr is no setting; did you mean")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_compiles_and_its_imports_exist(page: Path) -> None:
    for language, body in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sspa"):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    # The site makes these three from the program.
    made = {"commands.md", "settings.md", "index.md"}
    assert [target for target in targets if target not in made and not (page.parent / target).exists()] == []
