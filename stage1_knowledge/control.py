"""Controls: knowledge that cannot help, without which nobody can say that knowledge helped."""

import random
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import read_table, write_knowledge
from sspa.stage1_knowledge.table import count_clip_tokens

KINDS = ("name-only", "shuffled", "random-words")


def make_control(path: Path, kind: str, target: Path, seed: int = 0) -> int:
    """Write a control of a table: the same labels and numbers of sentences, without the knowledge.

    `name-only` leaves every sentence empty; `shuffled` gives every label the sentences of another;
    `random-words` keeps each sentence's number of words, drawn from all words of the table.

    Returns:
        The number of rows.

    Raises:
        UserError: an unknown kind, or too few labels to shuffle.
    """
    if kind not in KINDS:
        raise UserError(f"--kind {kind}: unknown; choose one of {', '.join(KINDS)}")
    rows = read_table(path)[0].to_pylist()
    draw = random.Random(seed)
    sentences = {
        "name-only": lambda: [""] * len(rows),
        "shuffled": lambda: _shuffled(rows, draw, path),
        "random-words": lambda: _random_words(rows, draw),
    }[kind]()
    kept = ("label", "text", "hint", "domain", "sample")
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in kept}
    columns |= {"description": sentences, "origin": ["control"] * len(rows), "attempts": [0] * len(rows)}
    columns |= {"prompt": [f"control: {kind}"] * len(rows), "seed": [seed] * len(rows)}
    columns |= {"clip_tokens": [0] * len(rows), "clip_cut": [""] * len(rows)}
    count_clip_tokens(columns)
    write_knowledge(target, (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)))
    return len(rows)


def _shuffled(rows: list[dict[str, Any]], draw: random.Random, path: Path) -> list[str]:
    """Each label gets the sentences of another, no label its own (Sattolo's cycle)."""
    labels = list(dict.fromkeys(row["label"] for row in rows))
    if len(labels) < 2:
        raise UserError(f"{path}: one label has no other to take sentences from")
    others = labels[:]
    for last in range(len(others) - 1, 0, -1):
        swap = draw.randrange(last)
        others[last], others[swap] = others[swap], others[last]
    source = dict(zip(labels, others, strict=True))
    own: dict[str, list[str]] = {label: [] for label in labels}
    for row in rows:
        own[row["label"]].append(row["description"])
    # A label with more samples than its source goes round.
    return [own[source[row["label"]]][row["sample"] % len(own[source[row["label"]]])] for row in rows]


def _random_words(rows: list[dict[str, Any]], draw: random.Random) -> list[str]:
    vocabulary = [word for row in rows for word in row["description"].split()]
    if not vocabulary:
        return [""] * len(rows)
    return [" ".join(draw.choices(vocabulary, k=len(row["description"].split()))) for row in rows]
