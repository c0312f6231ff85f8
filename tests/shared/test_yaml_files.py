"""YAML as PyYAML reads it, but for keys that are given twice."""

import pytest
import yaml

from sspa.shared.errors import UserError
from sspa.shared.yaml_files import parse_yaml


@pytest.mark.parametrize(
    "text",
    [
        "training: {epochs: 6, lr: 1e-4}\nmodel: {kap: {keep: 4}}",
        "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: [*a, *b], z: 1}",
        "1: integer\n'1': text",
        "- a\n- {a: 1}\n- {a: 2}",
        "",
    ],
)
def test_as_pyyaml_reads_it(text: str) -> None:
    assert parse_yaml(text, "f.yaml") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("training:\n  lr: 1\n  epochs: 2\n  lr: 3\n", "lr", 4),
        ("training: {lr: 1}\nmodel: {}\ntraining: {epochs: 1}\n", "training", 3),
        ("a: {x: 1, 'x': 2}", "x", 1),
        ("1: a\n01: b\n1: c", "1", 3),
    ],
)
def test_a_key_given_twice_is_an_error_that_says_where(text: str, key: str, line: int) -> None:
    with pytest.raises(UserError, match=rf"^f\.yaml: .*'{key}' is given twice.*line {line},"):
        parse_yaml(text, "f.yaml")


@pytest.mark.parametrize("text", ["about: [", "a: !!python/object:os.system {}", "[" * 5000])
def test_what_is_not_plain_yaml_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^f\.yaml: cannot be read as YAML \([^\n]+\)$"):
        parse_yaml(text, "f.yaml")
