"""What a review file holds, line by line: the labels, answers, and answers taken back."""

import time
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from sspa.shared.label_sets import Label

FORMAT_VERSION = 1
# Why a photo was asked about: the strategy chose it, it was drawn at random, a page showed it for one label, or its
# given marks are checked.
Chosen = Literal["useful", "random", "grid", "check"]
Mark = Literal[1, 0, -1]


def now() -> str:
    """The time as it is written, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def new_id() -> str:
    """An identifier of a new entry."""
    return uuid4().hex


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReviewedLabel(_Entry):
    """A label that is asked about."""

    key: str
    text: str
    hint: str = ""


class Head(_Entry):
    """The first line, and again wherever the labels have changed: those that are asked about from here on."""

    sspa_review: int = FORMAT_VERSION
    domain: str = "natural"
    labels: tuple[ReviewedLabel, ...] = Field(min_length=1)

    def as_labels(self) -> tuple[Label, ...]:
        """The labels as the rest of the program has them."""
        return tuple(Label(one.key, one.text, one.hint) for one in self.labels)


class Answer(_Entry):
    """What a person said about one photo.

    Attributes:
        id: of this entry; the same answer sent twice has the same one.
        path: the photo, relative to the folder of photos, with slashes.
        marks: of each label that was asked about, by key: 1 present, 0 absent, -1 not known.
        suggested: the model's probability of each of them, as it was shown.
        by, at: who, and when, in UTC.
        seconds: from showing the photo to the answer.
        chosen: why this photo was asked about.
    """

    id: str = Field(default_factory=new_id, min_length=1, max_length=64)
    path: str
    marks: dict[str, Mark]
    suggested: dict[str, float] = Field(default_factory=dict)
    by: str = ""
    at: str = Field(default_factory=now)
    seconds: float = 0.0
    chosen: Chosen = "useful"


class Undo(_Entry):
    """An earlier answer is taken back: `undo` is its id."""

    undo: str
    id: str = Field(default_factory=new_id, min_length=1, max_length=64)
    by: str = ""
    at: str = Field(default_factory=now)


Entry = Head | Answer | Undo


def entry_of(content: Any) -> Entry:
    """A line's JSON as the entry it is.

    Raises:
        ValueError: it is none (pydantic's error is one).
    """
    if not isinstance(content, dict):
        raise ValueError("no entry of a review file")
    kind: type[Entry] = Head if "sspa_review" in content else Undo if "undo" in content else Answer
    return kind.model_validate(content)
