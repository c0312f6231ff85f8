"""What the site has beside docs/: README and other pages at the top of the project, and pages made from the code."""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Pages at the top of the project, by their names on the site.
TOP = {"index.md": "README.md", **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for name, source in TOP.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_relinked(text, set(files.src_uris) | set(TOP))))
    files.append(File.generated(config, "settings.md", content=settings_page()))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links out of docs/ lead to the same pages on the site."""
    return markdown if page.file.src_uri in TOP else _relinked(markdown, set(files.src_uris), "docs")


def _relinked(text: str, known: set[str], folder: str = "") -> str:
    """The text with its links, relative to `folder` of the project, as those of the site; others become plain text."""

    def link(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found[0]
        path, hash_, anchor = target.partition("#")
        inside = posixpath.normpath(posixpath.join(folder, path))
        of_site = {source: name for name, source in TOP.items()}.get(inside, inside.removeprefix("docs/"))
        return f"{mark}[{words}]({of_site}{hash_}{anchor})" if of_site in known else words

    return _LINK.sub(link, text)


def settings_page() -> str:
    """Every setting, from the configuration itself."""
    from sspa.stage2_training.config.settings_list import Setting, list_settings

    sections: dict[str, list[Setting]] = {}
    for setting in list_settings():
        head, _, rest = setting.key.partition(".")
        title = setting.only_with or (head if rest else "The run")
        sections.setdefault(title, []).append(setting)
    lines = [
        "# Settings",
        "",
        "`--set KEY=VALUE` and `--config FILE.yaml` of `sspa-train` change any of these; `sspa-train settings TEXT` "
        "finds them on the command line. A preset sets several at once, and later sources override earlier ones: "
        "preset, files, `--set`, options. What is marked *reconstruction* the paper does not specify.",
    ]
    for title, settings in sections.items():
        lines += ["", f"## {title}", "", "| key | default | values | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{one.key}` | {_code(one.default)} | {_cell(one.takes)} | {_cell(one.meaning)} |" for one in settings
        ]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Every command with its arguments and options, from the programs themselves."""
    from sspa.stage1_knowledge.commands import app as knowledge
    from sspa.stage2_training.cli.main import app as train

    lines = ["# Commands", "", "What `--help` says of each, on one page."]
    for program, app in (("sspa-knowledge", knowledge), ("sspa-train", train)):
        lines += ["", f"## {program}"]
        for name, command in _commands(typer.main.get_command(app), program):
            arguments = [one for one in command.params if one.param_type_name == "argument"]
            options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
            usage = " ".join([name, *(_plain(one) for one in arguments), "[OPTIONS]" if options else ""])
            lines += ["", f"### {name}", "", _cell(command.help), "", f"    {usage}", ""]
            lines += [f"- `{_plain(one)}`: {_cell(one.help or '')}" for one in arguments]
            if options:
                lines += ["", "| option | default | meaning |", "|---|---|---|"]
                lines += [f"| {_names(one)} | {_default(one)} | {_cell(one.help or '')} |" for one in options]
    return "\n".join(lines) + "\n"


# typer brings its own copy of click, so that these are no classes of a click that could be named here.
def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for below, one in command.commands.items():
            yield from _commands(one, f"{name} {below}")
    elif not command.hidden:
        yield name, command


def _plain(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _names(option: Any) -> str:
    return " ".join(f"`{name}`" for name in option.opts if name.startswith("--"))


def _default(option: Any) -> str:
    if option.required:
        return "needed"
    value = option.default
    return "" if value in (None, False, ()) or callable(value) else _code(str(getattr(value, "value", value)))


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


def _cell(text: str) -> str:
    """A text in a table, on one line; its bars, stars and angle brackets are shown."""
    return re.sub(r"([|*])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")
