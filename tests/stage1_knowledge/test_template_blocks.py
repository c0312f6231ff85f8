"""Templates from anyone: a block ends, and what it takes is bounded."""

import pytest

from sspa.shared.errors import UserError
from sspa.stage1_knowledge import template_blocks
from sspa.stage1_knowledge.template_blocks import Blocks, BoundedBlocks


def _bounded(question: str) -> BoundedBlocks:
    return BoundedBlocks("{% block question %}" + question + "{% endblock %}", "own.jinja")


def test_both_render_the_same() -> None:
    content = "{% block a %} {{ text | upper }}{% if hint %} ({{ hint }}){% endif %} {% endblock %}"
    content += "{% block b %}ü{% endblock %}"
    here, there = Blocks(content), BoundedBlocks(content, "own.jinja")
    assert here.names == there.names == {"a", "b"}
    for values in ({"text": "cat", "hint": ""}, {"text": "häßlich \u2028", "hint": "x"}):
        assert here.render("a", values) == there.render("a", values)
    assert there.render("b", {}) == "ü"
    for blocks in (here, there):
        with pytest.raises(ValueError, match="'text' is undefined"):
            blocks.render("a", {})
    assert there.render("b", {}) == "ü"


@pytest.mark.parametrize("question", ["{{ 'a' * 10**10 }}", "{{ '%10000000000d' % 1 }}", "{{ 'a'.center(10**10) }}"])
def test_memory_is_bounded(question: str) -> None:
    with pytest.raises(ValueError, match=r"MemoryError|too big|too large|cannot fit"):
        _bounded(question).render("question", {})


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = _bounded("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    monkeypatch.setattr(template_blocks, "SECONDS", 1.0)
    with pytest.raises(UserError, match=r"own\.jinja: block 'question' takes longer than 1 s"):
        blocks.render("question", {})


def test_endless_recursion_is_an_error() -> None:
    with pytest.raises(ValueError, match="recursion"):
        _bounded("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").render("question", {})


def test_what_is_no_template_is_one_line() -> None:
    with pytest.raises(UserError, match=r"own\.jinja, line 1: not a Jinja2 template"):
        _bounded("{{ ")
