"""Label sets: the names a data set gives its labels, and how each is shown to a language or text model."""

import re
import unicodedata
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sspa.shared.errors import UserError
from sspa.shared.label_file_forms import other_form
from sspa.shared.suggestions import nearest_or_all
from sspa.shared.terminal import say

DOMAINS = ("natural", "pedestrian", "remote_sensing")
MAX_CHARACTERS = 200

_DOMAIN_LINE = re.compile(r"#\s*domain\s*:\s*(\S*)\s*$")
# What no name holds: expressions of templates, and tokens of chat formats.
_TOKENS = re.compile(
    r"\{[{%#]|[%#}]\}|<[|\uff5c]|[|\uff5c]>|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS)\]", re.IGNORECASE
)
# What a template engine or a chat format could read as its own syntax: in a name, but not in what models are shown.
_SYNTAX = re.compile(r"[{}<>|]|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS)\]", re.IGNORECASE)


@dataclass(frozen=True)
class Label:
    """One label: `key` is the data set's own name, `text` is shown to models, `hint` says what is meant."""

    key: str
    text: str
    hint: str = ""


@dataclass(frozen=True)
class LabelSet:
    """The labels of a data set, in its order."""

    name: str
    labels: tuple[Label, ...]
    domain: str = "natural"

    @property
    def keys(self) -> tuple[str, ...]:
        """The data set's own names."""
        return tuple(label.key for label in self.labels)

    @property
    def texts(self) -> tuple[str, ...]:
        """The names shown to models."""
        return tuple(label.text for label in self.labels)


def built_in_names() -> tuple[str, ...]:
    """Names of the label sets that ship with the package, sorted."""
    folder = resources.files("sspa.shared").joinpath("built_in_labels")
    return tuple(sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir() if entry.name.endswith(".txt")))


def built_in_label_set(name: str) -> LabelSet:
    """The label set of that name that ships with the package, whatever the current folder contains.

    Raises:
        UserError: there is none of that name.
    """
    if name not in built_in_names():
        raise UserError(f"there is no built-in label set {name!r}; {nearest_or_all(name, built_in_names())}")
    entry = resources.files("sspa.shared").joinpath("built_in_labels", f"{name}.txt")
    return parse_label_set(entry.read_bytes(), name=name, source=f"built-in {name}.txt")


def read_label_set(file_or_name: str | Path) -> LabelSet:
    """Read a label file, or the built-in set of that name (with or without `.txt`) if there is no such file.

    A file has one label per line, optionally `label<TAB>text<TAB>hint`; without a text, models are shown the label
    without braces and other syntax of templates and chats. Lines that start with `#` are comments;
    `# domain: pedestrian` among them sets the prompt domain. Empty lines are skipped. If a built-in set has the same
    name as a file or folder, a message says which is read.

    Raises:
        UserError: nothing of that name, not UTF-8 text, no label, a duplicate label (also after folding
            case and spaces), or a label with characters that do not belong in a name; or another form, such as a
            table or a numbered list.
    """
    path = Path(file_or_name)
    name = str(file_or_name).removesuffix(".txt")
    built_in = name in built_in_names()
    if path.is_file():
        if built_in:
            say(f"labels: the file {path}, not the built-in set {name}")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        if form := other_form(content.decode("utf-8-sig", errors="replace"), path.suffix.lower()):
            raise UserError(f"{path}: {form}, not a label file; write one label per line")
        return parse_label_set(content, name=path.stem, source=str(path))
    if built_in:
        if path.exists():
            say(f"labels: the built-in set {name}; {path} here is a folder, not a label file")
        return built_in_label_set(name)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a label file, one label per line")
    raise UserError(
        f"{file_or_name}: no such label file; give a file with one label per line, "
        f"or a built-in set: {', '.join(built_in_names())}"
    )


def parse_label_set(content: bytes, name: str, source: str) -> LabelSet:
    """Parse the bytes of a label file; errors refer to it as `source`.

    Raises:
        UserError: see `read_label_set`.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad_line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{source}, line {bad_line}: not UTF-8 text; save the file as UTF-8") from error
    labels: list[Label] = []
    seen: dict[str, tuple[int, str]] = {}
    domain = "natural"
    # Not splitlines(): it would take a form feed or U+2028 inside a label for a line break.
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r")
        where = f"{source}, line {number}"
        if line.startswith("#"):
            if found := _DOMAIN_LINE.match(line):
                domain = _checked_domain(found[1], where)
            continue
        if not line:
            continue
        label = _parse_line(line, where)
        folded = fold(label.key)
        if folded in seen:
            first_line, first = seen[folded]
            raise UserError(
                f"{where}: label {label.key!r} is already on line {first_line} as {first!r}; remove one of them"
            )
        seen[folded] = (number, label.key)
        labels.append(label)
    if not labels:
        raise UserError(f"{source}: has no labels; write one label per line")
    return LabelSet(name=name, labels=tuple(labels), domain=domain)


def label_file(labels: LabelSet) -> str:
    """The content of a label file that reads as these labels.

    Raises:
        UserError: a label begins with #, as comments do.
    """
    lines = [f"# domain: {labels.domain}"]
    for label in labels.labels:
        if label.key.startswith("#"):
            raise UserError(f"label {label.key!r} begins with #, which a label file takes for a comment; rename it")
        fields = [label.key, label.text if label.hint or label.text != label.key else "", label.hint]
        lines.append("\t".join(fields).rstrip("\t"))
    return "\n".join(lines) + "\n"


def fold(name: str) -> str:
    """A name without differences of case, width and spacing; labels that fold to the same name are duplicates.

    Example:
        >>> fold("Dining  Table") == fold("dining table")
        True
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _parse_line(line: str, where: str) -> Label:
    fields = line.split("\t")
    if len(fields) > 3:
        raise UserError(f"{where}: {len(fields)} fields; write label<TAB>text<TAB>hint at most")
    key, (text, hint) = checked_key(fields[0], where), (_checked(field, where) for field in [*fields, "", ""][1:3])
    if not fold(key):
        raise UserError(f"{where}: the label is empty; write a name, or remove the line")
    return Label(key=key, text=text or text_of_key(key, where), hint=hint)


def text_of_key(key: str, where: str) -> str:
    """The text that models are shown for a key: without what a template engine or a chat format would obey.

    Raises:
        UserError: nothing is left.
    """
    text = " ".join(_SYNTAX.sub(" ", key).split())
    if not text:
        raise UserError(f"{where}: label {key!r} is template or chat syntax only; rename it")
    return text


def checked_key(field: str, where: str) -> str:
    """A data set's own name for a label: trimmed, in Unicode normal form C, of visible characters.

    Raises:
        UserError: it is too long, or holds a control or invisible character, or an expression of a template.
    """
    name = unicodedata.normalize("NFC", field.strip(" "))
    shown = repr(name if len(name) <= 60 else name[:57] + "...")
    if len(name) > MAX_CHARACTERS:
        raise UserError(f"{where}: label {shown} has {len(name):,} characters; {MAX_CHARACTERS} is the limit")
    for character in name:
        # Cc, Cf: controls and invisible formats (right-to-left overrides); Zl, Zp: line breaks; Cs, Co, Cn: no text.
        if unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"}:
            raise UserError(
                f"{where}: label {shown} holds the control or invisible character U+{ord(character):04X}; remove it"
            )
    if found := _TOKENS.search(name):
        raise UserError(f"{where}: label {shown} holds {found[0]!r}, which is template or chat syntax; remove it")
    return name


def _checked(field: str, where: str) -> str:
    """A field of a label file, which models are shown."""
    name = checked_key(field, where)
    shown = repr(name if len(name) <= 60 else name[:57] + "...")
    if found := _SYNTAX.search(name):
        raise UserError(f"{where}: label {shown} holds {found[0]!r}, which is template or chat syntax; remove it")
    return name


def _checked_domain(domain: str, where: str) -> str:
    if domain not in DOMAINS:
        raise UserError(f"{where}: domain {domain!r} is unknown; choose one of {', '.join(DOMAINS)}")
    return domain
