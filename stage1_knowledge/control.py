"""`sspa-knowledge control`: a control of a table, with CLIP tokens counted."""

from pathlib import Path
from typing import Any

from sspa.shared.knowledge_control import control_rows
from sspa.shared.knowledge_format import write_knowledge
from sspa.stage1_knowledge.table import count_clip_tokens


def make_control(path: Path, kind: str, target: Path, seed: int = 0) -> int:
    """Write a control of a table; see `control_rows` for the kinds.

    Returns:
        The number of rows.

    Raises:
        UserError: an unknown kind, or too few labels to shuffle.
    """
    rows = control_rows(path, kind, seed)
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in ("text", "description")}
    columns |= {"clip_tokens": [0] * len(rows), "clip_cut": [""] * len(rows)}
    count_clip_tokens(columns)
    counted = zip(rows, columns["clip_tokens"], columns["clip_cut"], strict=True)
    write_knowledge(target, ({**row, "clip_tokens": tokens, "clip_cut": cut} for row, tokens, cut in counted))
    return len(rows)
