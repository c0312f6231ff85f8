"""A protocol of one's own: a YAML file that overrides rules of a built-in protocol.

    name: five-tags
    based_on: custom
    threshold: 0.3
    top_k: 5
    headline: [mAP, CF1@5, OF1@5]
    source: section 4 of our report

Its hash covers every rule, those of the built-in one included, so that results under two versions of the file are never
compared.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sspa.shared.errors import UserError
from sspa.shared.json_files import check_shape
from sspa.shared.suggestions import nearest_or_all
from sspa.shared.yaml_files import read_yaml
from sspa.stage2_training.evaluation.protocol import APForm, Difficult, Protocol, Unlabelled
from sspa.stage2_training.evaluation.protocols import get_protocol, protocol_names

_OF_DECISIONS = ("CP", "CR", "CF1", "OP", "OR", "OF1")
_HEADLINES = ("mAP", "mA", "accuracy", "precision", "recall", "F1", *_OF_DECISIONS)


class _Rules(BaseModel):
    """The keys of the file; what is missing is as in `based_on`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=80)]
    based_on: str = "custom"
    average_precision: APForm | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    difficult: Difficult | None = None
    unlabelled_images: Unlabelled | None = None
    headline: Annotated[list[str], Field(min_length=1)] | None = None
    source: str | None = None


def find_protocol(name_or_file: str | Protocol) -> Protocol:
    """A built-in protocol by its name, or one's own by its file (*.yaml, *.yml); a protocol is itself.

    Raises:
        UserError: there is none, or the file has a mistake.
    """
    if isinstance(name_or_file, Protocol):
        return name_or_file
    if name_or_file.endswith((".yaml", ".yml")):
        return read_own_protocol(Path(name_or_file))
    try:
        return get_protocol(name_or_file)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}; one of your own is a YAML file (*.yaml)") from error


def read_own_protocol(file: Path) -> Protocol:
    """The protocol in a YAML file.

    Raises:
        UserError: it cannot be read, has an unknown key or a value out of range, or bears the name of a built-in one.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: holds no keys; write for example `name: five-tags` and `threshold: 0.3`")
    for key in content:
        if key not in _Rules.model_fields:
            raise UserError(f"{file}: no protocol has the key {key!r}; {nearest_or_all(str(key), _Rules.model_fields)}")
    rules = check_shape(_Rules, content, f"{file}: is not a protocol")
    if not re.fullmatch(r"[\w.-]+", rules.name):
        raise UserError(f"{file}: name: {rules.name!r} is printed with results; take letters, digits, '-', '_' and '.'")
    if rules.name in protocol_names():
        raise UserError(f"{file}: name: {rules.name} is a built-in protocol; give yours another name")
    if rules.based_on not in protocol_names():
        known = nearest_or_all(rules.based_on, protocol_names())
        raise UserError(f"{file}: based_on: there is no built-in protocol {rules.based_on!r}; {known}")
    base = get_protocol(rules.based_on)
    if rules.difficult is not None and not base.dataset.startswith("voc"):
        raise UserError(f"{file}: difficult: only VOC marks objects as difficult, and {base.name} is of other data")
    own = replace(base, **rules.model_dump(exclude_none=True, exclude={"headline"}))
    if rules.headline is not None:
        own = replace(own, headline=tuple(rules.headline))
    # The base's own figures at the top k have another name if that is changed.
    known_figures = (*_HEADLINES, *(f"{name}@{own.top_k}" for name in _OF_DECISIONS))
    for name in own.headline:
        if name not in known_figures:
            raise UserError(f"{file}: headline: there is no figure {name!r}; {nearest_or_all(name, known_figures)}")
    return own
