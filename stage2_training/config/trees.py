"""Settings as nested mappings: read from YAML, addressed by dotted keys, merged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.yaml_files import read_yaml

Tree = dict[str, Any]


def read_tree(file: Path) -> Tree:
    """The settings in a YAML file.

    Raises:
        UserError: it cannot be read, holds no keys, or gives one twice.
    """
    tree = read_yaml(file)
    if not isinstance(tree, dict):
        raise UserError(f"{file}: holds no keys; write for example `training: {{epochs: 6}}`")
    return nested(flat(tree))


def nested(values: Mapping[str, Any]) -> Tree:
    """{"training.lr": 0.1} -> {"training": {"lr": 0.1}}.

    Raises:
        UserError: a key is below one that has a value.
    """
    tree: Tree = {}
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise UserError(f"configuration: {dotted}: {parent} is a value, not a section")
        section[last] = value
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The reverse of `nested`; an empty section is kept as it is.

    Raises:
        UserError: a key is given both with dots and in its section.
    """
    values: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        below = flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
        if twice := sorted(values.keys() & below.keys()):
            raise UserError(f"configuration: {twice[0]} is given twice")
        values |= below
    return values


def overridden(tree: Mapping[str, Any], by: Mapping[str, Any]) -> Tree:
    """`tree` with its values overridden by those of `by`."""
    return nested({**flat(tree), **flat(by)})
