"""YAML that people write by hand."""

from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from sspa.shared.errors import UserError

_MERGE = "tag:yaml.org,2002:merge"


def read_yaml(file: Path) -> Any:
    """The plain values in a YAML file.

    Raises:
        UserError: it cannot be read, or see `parse_yaml`.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not text in UTF-8 ({error})") from error
    return parse_yaml(text, file)


def parse_yaml(text: str, where: object) -> Any:
    """The plain values in `text`.

    Args:
        where: what errors name: the file, or the option.

    Raises:
        UserError: it is not YAML, or gives a key twice, of which PyYAML would keep the last.
    """
    try:
        return _UniqueKeys(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{where}: cannot be read as YAML ({' '.join(str(error).split())[:300]})") from error


class _UniqueKeys(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add((key.tag, key.value))
        return node
