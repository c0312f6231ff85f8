"""Runs all `>>>` examples in docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    ".".join(("sspa", *file.relative_to(ROOT).with_suffix("").parts))
    for folder in ("shared", "stage1_knowledge", "stage2_training")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


def test_there_are_examples() -> None:
    assert "sspa.shared.label_sets" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_right(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried
    assert not failed
