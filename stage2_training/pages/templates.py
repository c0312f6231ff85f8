"""The templates of the HTML pages: files in this folder; all values are escaped."""

from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from sspa.shared.files import replacing


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Fill a template and write it as one self-contained page: no network, no other files."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**content)
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def _source(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
