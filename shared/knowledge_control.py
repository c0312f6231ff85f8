"""Controls: knowledge that cannot help. Without them nobody can say that knowledge helped."""

import random
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import read_table

KINDS = ("name-only", "shuffled", "random-words")


def control_rows(path: Path, kind: str, seed: int = 0) -> list[dict[str, Any]]:
    """The rows of a control: the labels and numbers of descriptions of a knowledge file, without the knowledge.

    `name-only` leaves every description empty; `shuffled` gives every label the descriptions of another;
    `random-words` keeps each description's number of words, drawn from all words of the table.

    Returns:
        Rows for `write_knowledge`; columns they leave out get their defaults.

    Raises:
        UserError: an unreadable file, an unknown kind, or too few labels to shuffle.
    """
    if kind not in KINDS:
        raise UserError(f"control {kind}: unknown; choose one of {', '.join(KINDS)}")
    rows = read_table(path)[0].to_pylist()
    draw = random.Random(seed)
    descriptions = {
        "name-only": lambda: [""] * len(rows),
        "shuffled": lambda: _shuffled(rows, draw, path),
        "random-words": lambda: _random_words(rows, draw),
    }[kind]()
    kept = ("label", "text", "hint", "domain", "sample")
    about = {"origin": "control", "attempts": 0, "prompt": f"control: {kind}", "seed": seed}
    return [
        {**{name: row[name] for name in kept}, "description": description, **about}
        for row, description in zip(rows, descriptions, strict=True)
    ]


def _shuffled(rows: list[dict[str, Any]], draw: random.Random, path: Path) -> list[str]:
    """Each label gets the descriptions of another, none its own (Sattolo's algorithm)."""
    labels = list(dict.fromkeys(row["label"] for row in rows))
    if len(labels) < 2:
        raise UserError(f"{path}: one label has no other to take descriptions from")
    others = labels[:]
    for last in range(len(others) - 1, 0, -1):
        swap = draw.randrange(last)
        others[last], others[swap] = others[swap], others[last]
    source = dict(zip(labels, others, strict=True))
    own: dict[str, list[str]] = {label: [] for label in labels}
    for row in rows:
        own[row["label"]].append(row["description"])
    # A label with more samples than its source cycles through them.
    return [own[source[row["label"]]][row["sample"] % len(own[source[row["label"]]])] for row in rows]


def _random_words(rows: list[dict[str, Any]], draw: random.Random) -> list[str]:
    vocabulary = [word for row in rows for word in row["description"].split()]
    if not vocabulary:
        return [""] * len(rows)
    return [" ".join(draw.choices(vocabulary, k=len(row["description"].split()))) for row in rows]
