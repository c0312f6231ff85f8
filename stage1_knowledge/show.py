"""Descriptions in readable form."""

import json
from pathlib import Path
from typing import Any

from sspa.shared.errors import UserError
from sspa.shared.knowledge_format import read_table


def show_all(path: Path) -> str:
    """All labels with their descriptions; doubtful ones say why."""
    lines = []
    previous = None
    for row in read_table(path)[0].to_pylist():
        if row["label"] != previous:
            named = row["label"] if row["text"] == row["label"] else f"{row['label']} ({row['text']})"
            lines.append(named)
            previous = row["label"]
        doubt = f"  [{row['verdict']}: {row['reason']}]" if row["verdict"] != "good" else ""
        lines.append(f"  {row['description'] or '(empty)'}{doubt}")
    return "\n".join(lines)


def show_label(path: Path, label: str) -> str:
    """Everything recorded about one label.

    Raises:
        UserError: the file has no such label.
    """
    rows = read_table(path)[0].to_pylist()
    found = [row for row in rows if label in (row["label"], row["text"])]
    if not found:
        raise UserError(f"{path}: has no label {label!r}; `sspa-knowledge show {path}` lists them")
    return "\n\n".join(_one(row) for row in found)


def _one(row: dict[str, Any]) -> str:
    facts = {
        "label": row["label"],
        "text": row["text"],
        "hint": row["hint"],
        "description": row["description"] or "(empty)",
        "verdict": row["verdict"] + (f": {row['reason']}" if row["reason"] else ""),
        "origin": row["origin"],
        "CLIP": f"{row['clip_tokens']} of 77 tokens" + (f"; cut: {row['clip_cut']!r}" if row["clip_cut"] else ""),
        "model": " ".join(filter(None, (row["model"], row["quantisation"], f"({row['revision'][:12]})"))),
        "engine": row["engine"],
        "prompt": f"{row['prompt']} ({row['prompt_hash'][:12]}), {row['answer_form']}",
        "sampling": f"{row['sampling']}, seed {row['seed']}",
        "key": row["key"],
    }
    if row["origin"] != "model":
        facts = {name: facts[name] for name in ("label", "text", "hint", "description", "verdict", "origin", "CLIP")}
    lines = [f"{name:11s} {value}" for name, value in facts.items() if value]
    for number, answer in enumerate(json.loads(row["answers"]), start=1):
        lines.append(f"answer {number:<4d} {answer['text']!r} ({answer['finish']}, {answer['output_tokens']} tokens)")
    return "\n".join(lines)
